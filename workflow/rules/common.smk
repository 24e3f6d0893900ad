# The checked study, and what rules need to name their code and their wildcards.

import os
import re
import sys
from dataclasses import asdict
from functools import cache
from pathlib import Path

ROOT = Path(str(workflow.current_basedir)).parents[1]

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
IMPORTED_FROM = [str(ROOT / "src"), str(Path.cwd())]
sys.path[:0] = IMPORTED_FROM
INHERITED = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
os.environ.update(
    PYTHONPATH=os.pathsep.join(dict.fromkeys([*IMPORTED_FROM, *INHERITED]))
)

from batchscape.environment_variables import clean
from batchscape.errors import UserError
from batchscape.fingerprint import PACKAGE, fingerprint, module_path
from batchscape.report.story import CAPTIONS, CATEGORIES
from batchscape.products import ANALYSES, FIGURES, TABLES
from batchscape.slurm_job import nodes_of_job
from batchscape.study import Study

# Those of Snakemake, its plugins and its jobs.
clean()


def load_study():
    """Check the one study file of this invocation; end with one line for each mistake in it.

    Snakemake merges all config files into one another, so the file is read here, by itself.
    """
    given = workflow.overwrite_configfiles
    try:
        if len(given) > 1:
            raise UserError(
                "--configfile: a study is one file that stands alone; give only one"
            )
        path = Path(given[0]) if given else ROOT / "config" / "config.yaml"
        shown = (
            path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
        )
        checked = Study.from_file(shown, workflow.config_settings.config)
        checked.require_files(str(shown))
        return checked
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(1)


@cache
def code(script, *modules, others=()):
    """Return the fingerprint of the code that a job runs: its script, what that imports by name, and other files."""
    return fingerprint(
        ROOT / "workflow" / "scripts" / script, *map(module_path, modules), *others
    )


def refuse_foreign(targets):
    """End with one line for a file that is asked for by its path, but is of another study or of no run of this one."""
    known = {name for run in study.runs.values() for name in (run.name, run.setting)}
    for target in targets:
        named = [match[0] for match in re.finditer(f"{SETTING}(-seed\\d+)?", target)]
        unknown = [name for name in named if name not in known]
        foreign = not target.startswith(f"{study.folder}/")
        if foreign:
            print(
                f"{target}: is not of the study {study.name}; name its file: --configfile FILE",
                file=sys.stderr,
            )
        elif unknown:
            print(
                f"{target}: the study {study.name} has no runs {unknown[0]}; its runs are such as {next(iter(study.runs))}, "
                "and `python -m batchscape check FILE` says which",
                file=sys.stderr,
            )
        if foreign or unknown:
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
    if nodes > 1 and not on_cluster() and nodes_of_job() < nodes:
        print(
            f"resources.nodes: {nodes}, but all jobs run on this machine; add "
            "`--workflow-profile profiles/slurm` or write `nodes: 1`",
            file=sys.stderr,
        )
        sys.exit(1)


def tell_report():
    """Say last where the report is, if all was asked for."""
    some = any(argument.startswith("results/") for argument in sys.argv[1:])
    if Path(study.report).exists() and not (some or workflow.remote_exec):
        print(f"The report: {study.report}", file=sys.stderr)


def cancel_what_is_left(printed):
    """Cancel the Slurm jobs that Ctrl-C has left: in the midst of a look at Slurm, Snakemake cancels none.

    Only its own, whose name its log tells: another study may be at work in the same folder.
    """
    texts = "".join(Path(file).read_text(errors="replace") for file in printed)
    name = re.search(r"SLURM run ID: (\S+)", texts)
    if workflow.remote_exec or name is None:
        return
    from batchscape.cancel import cancel

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
    from batchscape.status import failures

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


def on_cluster():
    """Say whether this invocation sends its jobs to a cluster, or is a job of one that did."""
    return workflow.remote_exec or workflow.non_local_exec


def asked_gpus(count):
    """Return how many GPUs a job asks for: with `accelerator: auto` all that it would use, but of a cluster none."""
    return 0 if on_cluster() and study.training.accelerator == "auto" else count


# A path to a caption holds no wildcards, but a caption is a template that sees this and its job's wildcards.
config["captions"] = {figure: asdict(caption) for figure, caption in CAPTIONS.items()}

SETTING = r"bs\d+-lr(\d+(\.\d+)?|tuned)(-warmup\d+)?"
study = load_study()
# Snakemake knows its targets only when it has read the rules, and would meet a wrong one with a traceback.
refuse_foreign(argument for argument in sys.argv[1:] if argument.startswith("results/"))


wildcard_constraints:
    run=rf"{SETTING}-seed\d+",
    setting=SETTING,
    other=SETTING,
    batch_size=r"\d+",
    directions=r"\d+",
    part=r"\d+",
    parts=r"\d+",
    rows="|".join(
        analysis.rows for analysis in ANALYSES.values() if analysis.jobs != "one"
    ),
    table="|".join(TABLES),
    figure="|".join(FIGURES),
