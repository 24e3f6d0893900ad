# The checked study, and what rules need to name their code and their wildcards.

import os
import re
import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path

from snakemake_interface_executor_plugins.settings import ExecMode

# Of a remote workflow, whose files Snakemake fetches one by one, this is no folder.
ROOT = Path(str(workflow.current_basedir)).parents[1]
IS_MODULE = not workflow.modifier.is_main_snakefile()
HAS_LIBRARY = (ROOT / "src" / "batchscape").is_dir()

# What stands in the commands of jobs.
PATHS = [path for path in (ROOT, Path.cwd(), Path(sys.executable)) if path.exists()]


def refuse_letters(letters):
    """End with one line for a path in which Snakemake cannot run jobs, for it has one of these letters."""
    for path in PATHS:
        if found := [letter for letter in letters if letter in str(path)]:
            print(
                f"{path}: Snakemake cannot run jobs in a folder with {' and '.join(map(ascii, found))} in its name; "
                "rename it, then the same command runs",
                file=sys.stderr,
            )
            sys.exit(1)


# A colon separates paths in PYTHONPATH, and Snakemake takes braces for wildcards.
refuse_letters(":{}\n")

# The folder where the workflow runs comes before Python's own in the path of every job.
for path in [*Path.cwd().glob("*.py"), *Path.cwd().glob("*/__init__.py")]:
    hiding = path.parent if path.name == "__init__.py" else path
    # Of those that nothing has imported, as `test`, no job will have need either.
    if hiding.stem in sys.stdlib_module_names.intersection(sys.modules):
        print(
            f"{hiding}: hides Python's own module `{hiding.stem}` from all jobs; give it another name",
            file=sys.stderr,
        )
        sys.exit(1)

# Snakemake writes it into the commands of jobs as it is. Backslashes, not quotes, for it writes parts of it as well.
if Path(sys.executable).exists():
    sys.executable = re.sub(r"([^\w@%+=,./-])", r"\\\1", sys.executable)

# The library of this checkout serves these rules and every job, whatever environment a job runs in. So do the user's own
# modules, which stand in the folder where the workflow runs. Both in this order, here and there, so that a job imports
# the files of which its fingerprint is.
IMPORTED_FROM = [*([str(ROOT / "src")] if HAS_LIBRARY else []), str(Path.cwd())]
sys.path[:0] = IMPORTED_FROM
INHERITED = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
os.environ.update(
    PYTHONPATH=os.pathsep.join(dict.fromkeys([*IMPORTED_FROM, *INHERITED]))
)


def installable():
    """Return what pip is to install for these rules."""
    source = workflow.current_basedir
    if HAS_LIBRARY:
        return ROOT
    if hasattr(source, "repo"):  # of GitHub or GitLab
        return f"git+https://{source.host}/{source.repo}@{source.ref}"
    if hasattr(source, "repo_path"):
        return f"git+file://{Path(source.repo_path).resolve()}@{source.ref}"
    return "FOLDER, a clone of its repository"


try:
    from batchscape.config.loading import read_assignments, without_texts
    from batchscape.runtime.environment_variables import sanitize_environment
    from batchscape.errors import UserError
    from batchscape.study.fingerprint import PACKAGE, fingerprint, module_path
    from batchscape.report.chapters import CAPTIONS, CATEGORIES
    from batchscape.study.registry import ANALYSES, FIGURES, TABLES
    from batchscape.runtime.slurm import job_num_nodes
    from batchscape.study.study import Study
except ImportError as error:
    print(
        f"{error.name}: cannot be imported by the Python that runs Snakemake ({error}); install the package of this "
        f"workflow there: pip install {installable()}",
        file=sys.stderr,
    )
    sys.exit(1)

# Those of Snakemake, its plugins and its jobs.
sanitize_environment()


def load_study():
    """Check the one study of this invocation; end with one line for each mistake in it.

    Return also its file, if that alone describes the study.
    """
    try:
        return study_of_module() if IS_MODULE else study_of_command()
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(1)


def study_of_command():
    """Read the study file of the command line, or of the Snakefile that includes these rules.

    Snakemake merges all config files into one another, so the file is read here, by itself.
    """
    given = workflow.overwrite_configfiles or workflow.configfiles
    if len(given) > 1:
        raise UserError(
            "--configfile: a study is one file that stands alone; give only one"
        )
    path = Path(given[0]) if given else ROOT / "config" / "config.yaml"
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    assignments = workflow.config_settings.config_args
    checked = Study.from_file(shown, *read_assignments(assignments))
    checked.require_files(str(shown))
    return checked, None if assignments else shown


def study_of_module():
    """Read the study that the Snakefile which uses these rules as a module hands on as `config`."""
    if not (config and isinstance(config, Mapping)):
        raise UserError(
            f"module {__name__}: gets no study; add `config: config` to it, and "
            '`configfile: "config/config.yaml"` above it'
        )
    source = ", ".join(map(str, workflow.configfiles)) or "config"
    values, texts = assignments_to(config)
    given = without_texts(config, values, texts)
    checked = Study.from_mapping(given, source, values, texts)
    checked.require_files(source)
    return checked, None


def assignments_to(config):
    """Return what `--config` assigns to the config of a module: all of the outer one, or one of its sections."""
    values, texts = read_assignments(workflow.config_settings.config_args)
    outer = workflow.modifier_stack[0].globals["config"]
    waiting = [(outer, values, texts)]
    while waiting:
        section, assigned, typed = waiting.pop()
        if section is config:
            return assigned, typed
        waiting += [
            (section[key], assigned[key], typed[key])
            for key in assigned
            if all(
                isinstance(part.get(key), Mapping)
                for part in (section, assigned, typed)
            )
        ]
    return {}, {}


@cache
def code(script, *modules, others=()):
    """Return the fingerprint of the code that a job runs: its script, what that imports by name, and other files."""
    file = Path(workflow.source_path(f"../scripts/{script}"))
    return fingerprint(file, *map(module_path, modules), *others)


def targets_of_command():
    """Return the targets of the command line as Snakemake's own parser finds them.

    When the rules are read, Snakemake does not yet say which they are; and it meets a wrong one with a traceback.
    """
    if not any("results/" in argument for argument in sys.argv[1:]):
        return []  # which spares making the parser, a fifth of a second
    from snakemake.cli import get_argument_parser

    parsed, _ = get_argument_parser().parse_known_args(sys.argv[1:])
    return [os.path.relpath(target) for target in parsed.targets]


def refuse_foreign(targets):
    """End with one line for a file that is asked for by its path, but is of another study or of no run of this one."""
    known = {name for run in study.runs.values() for name in (run.name, run.setting)}
    folder = workflow.modifier.modify_path(f"{study.folder}/")
    for target in targets:
        if not target.startswith(folder):
            # Beside a module there are rules of others.
            if target.startswith("results/") and not IS_MODULE:
                print(
                    f"{target}: is not of the study {study.name}; name its file: --configfile FILE",
                    file=sys.stderr,
                )
                sys.exit(1)
            continue
        named = [match[0] for match in re.finditer(f"{SETTING}(-seed\\d+)?", target)]
        unknown = [name for name in named if name not in known]
        if unknown:
            print(
                f"{target}: the study {study.name} has no runs {unknown[0]}; its runs are such as {next(iter(study.runs))}, "
                "and `python -m batchscape check FILE` says which",
                file=sys.stderr,
            )
            sys.exit(1)


def refuse_read_only(folder):
    """End with one line if nothing can be written to a folder, or to the one in which it is to be made."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        print(
            f"{there}: is read-only here; make it writable, then the same command runs",
            file=sys.stderr,
        )
        sys.exit(1)


def refuse_letters_on_cluster():
    """End with one line for a path in which jobs run here, but not on a cluster.

    Snakemake's plugin puts the command of a job in double quotes, and Slurm fills in what follows a percent sign in the
    path of a log.
    """
    if on_cluster():
        refuse_letters('"$`\\%')


def refuse_several_nodes():
    """End with one line for several nodes without a cluster: each training would fail with it."""
    nodes = study.resources.nodes
    if nodes > 1 and not on_cluster() and job_num_nodes() < nodes:
        print(
            f"resources.nodes: {nodes}, but all jobs run on this machine; add "
            "`--workflow-profile profiles/slurm` or write `nodes: 1`",
            file=sys.stderr,
        )
        sys.exit(1)


# What jobs keep beside their outputs, undeclared, to resume from it or to answer from it at once.
KEPT = (".completed", "resume", "optuna.journal", "trial", ".kept")


def forget_forced():
    """Delete what forced jobs (`-F`, `-R`, `-f`) keep, so that they compute again rather than find their work done."""
    if workflow.exec_mode != ExecMode.DEFAULT or workflow.touch:
        return  # a job forces itself, and is to resume; `--touch` computes nothing
    dag = workflow.dag
    forced = [job for job in dag.needrun_jobs() if dag.reason(job).forced]
    for folder in {Path(file).parent for job in forced for file in job.output}:
        for kept in map(folder.joinpath, KEPT):
            if kept.is_dir():
                shutil.rmtree(kept)
            else:
                kept.unlink(missing_ok=True)


def report_kept():
    """Say what was not computed again, for it was complete: jobs may run in which nothing is left to do."""
    ran = [job for job in workflow.dag.needrun_jobs(exclude_finished=False) if job.log]
    asked = {
        names: [log for job in ran for log in job.log if f"/logs/{folder}/" in log]
        for folder, names in (
            ("train", ("run", "runs")),
            ("tune", ("search", "searches")),
        )
    }
    if not any(asked.values()) or workflow.exec_mode != ExecMode.DEFAULT:
        return
    from batchscape.cli.status import already_complete

    found = {names: already_complete(logs) for names, logs in asked.items()}
    if any(found.values()):
        counts = " and ".join(
            f"{count} {names[count > 1]}" for names, count in found.items() if count
        )
        print(
            f"Not trained again, since complete for the same data, settings and code: {counts}. To train again, add "
            "`-R train tune`.",
            file=sys.stderr,
        )


def tell_report():
    """Say last where the report is, if all was asked for."""
    asked = workflow.dag_settings
    everything = set(asked.targets) <= {"all"} and not (asked.until or asked.omit_from)
    if Path(study.report).exists() and everything and not workflow.remote_exec:
        print(f"The report: {study.report}", file=sys.stderr)


def cancel_what_is_left(printed):
    """Cancel the Slurm jobs that Ctrl-C has left: in the midst of a look at Slurm, Snakemake cancels none.

    Only its own, whose name its log tells: another study may be at work in the same folder.
    """
    texts = "".join(Path(file).read_text(errors="replace") for file in printed)
    name = re.search(r"SLURM run ID: (\S+)", texts)
    if workflow.remote_exec or name is None:
        return
    from batchscape.cli.cancel import cancel

    try:
        for line in cancel(Path.cwd(), name[1]):
            print(line, file=sys.stderr)
    except UserError as error:
        print(error, file=sys.stderr)


TOLD = 10


def tell_failures(printed):
    """Say once more, below what Snakemake says of each job, why jobs failed, and what now; `printed` are its own logs.

    Of jobs on a cluster it is the first time.
    """
    from batchscape.cli.status import failures

    lines = failures(
        "\n".join(Path(file).read_text(errors="replace") for file in printed),
        f"{study.folder}/logs",
    )
    if lines:
        more = [f"… and {len(lines) - TOLD} more"] if len(lines) > TOLD else []
        print(
            "",
            "What failed, by its log:",
            *lines[:TOLD],
            *more,
            "",
            sep="\n",
            file=sys.stderr,
        )
    mended = ", once that is mended" if lines else ""
    print(
        f"What is whole stays as it is. The same command goes on from here{mended}.",
        file=sys.stderr,
    )
    tell_partial_report()


def tell_partial_report():
    """Say how to get a report of what exists, if a run is complete and the study is that of its file alone."""
    some = any(Path(run_file).exists() for run_file in study.run_files)
    if some and STUDY_FILE:
        print(
            f"`python -m batchscape report {shlex.quote(str(STUDY_FILE))}` writes a report of what exists.",
            file=sys.stderr,
        )


def on_cluster():
    """Say whether this invocation sends its jobs to a cluster, would if it were no dry run, or is a job of one that did."""
    # Of a dry run Snakemake forgets the executor but for this.
    would = workflow.dryrun and workflow.execution_settings.use_threads
    return workflow.remote_exec or workflow.non_local_exec or would


@cache
def report_plan():
    """Say beforehand how much there is to train, and on what."""
    if workflow.exec_mode == ExecMode.DEFAULT:
        hint = "; `python -m batchscape check FILE` estimates their time"
        print(
            f"{study.name}: {study.described_trainings}{hint if workflow.dryrun else ''}",
            study.described_gpus(on_cluster()),
            sep="\n",
            file=sys.stderr,
        )
        asked = workflow.dag_settings
        forced = asked.forceall or asked.forcerun or asked.forcetargets
        if forced and IS_MODULE:
            print(
                f"{study.name}: of a module, finished runs are trained again by -F, -R and -f only if the outer Snakefile "
                f"has the handler `onstart: {__name__}.onstart()`",
                file=sys.stderr,
            )


def files_of_study():
    """Return all that the study makes. Snakemake asks when it plans, and then it is known where the jobs run."""
    report_plan()
    return study.files


def asked_gpus(count):
    """Return how many GPUs a job asks for: with `accelerator: auto` all that it would use, but of a cluster none."""
    return 0 if on_cluster() and study.training.accelerator == "auto" else count


study, STUDY_FILE = load_study()

# A path to a caption holds no wildcards, but a caption is a template that sees this and its job's wildcards.
# A new mapping, for that of a module is also the one of the Snakefile that uses it.
config = {
    **config,
    "captions": {figure: asdict(caption) for figure, caption in CAPTIONS.items()},
}

SETTING = r"bs\d+-lr(\d+(\.\d+)?|tuned)(-warmup\d+)?"
if workflow.exec_mode == ExecMode.DEFAULT:
    refuse_foreign(targets_of_command())


wildcard_constraints:
    run=rf"{SETTING}-seed\d+",
    setting=SETTING,
    other=SETTING,
    batch_size=r"\d+",
    directions=r"\d+",
    part=r"\d+",
    parts=r"\d+",
    rows="|".join(
        analysis.rows for analysis in ANALYSES.values() if analysis.is_gathered
    ),
    table="|".join(TABLES),
    figure="|".join(FIGURES),
