# What the rules share: wildcards, fingerprints of code, GPUs, captions.

from dataclasses import asdict
from functools import cache
from pathlib import Path

from snakemake.settings.types import SharedFSUsage


wildcard_constraints:
    run=rf"{SETTING_PATTERN}-seed\d+",
    setting=SETTING_PATTERN,
    other=SETTING_PATTERN,
    batch_size=r"\d+",
    directions=r"\d+",
    part=r"\d+",
    parts=r"\d+",
    point=POINT_PATTERN,
    rows="|".join(analysis.rows for analysis in ANALYSES.values() if analysis.is_split),
    table="|".join(TABLES),
    figure="|".join(FIGURES),


# The path of a caption cannot hold wildcards, but its text is a template that sees `config` and its job's wildcards.
# A new mapping: that of a module is also the config of the outer Snakefile.
config = {
    **config,
    "captions": {
        figure: asdict(
            caption.in_words_of(Measures.from_settings(study.specs.measures))
        )
        for figure, caption in CAPTIONS.items()
    },
}


def find_complete_runs(folder):
    """Return the names of the runs in a folder that are complete; None in a job, during which they change."""
    if IS_JOB or study.resources.seeds_per_job == 1:
        return None
    path = Path(workflow.modifier.modify_path(folder))
    return [file.parent.name for file in path.glob("*/run.json")]


def share_profile(names):
    """Apply to all rules what the profile says of the first one: resources and threads.

    Before the rules are defined, which read it.
    """
    first, *others = map(workflow.modifier.modify_rulename, names)
    settings = workflow.resource_settings
    for name in ("overwrite_resources", "overwrite_threads"):
        values = getattr(settings, name)
        if others and first in values:
            shared = dict.fromkeys(others, values[first])
            setattr(settings, name, {**shared, **values})
            # Parsed when the first rule was defined, and parsed again when it is needed.
            vars(settings).pop(f"_parsed_{name}", None)


@cache
def share_options(names):
    """Apply to all rules what the command line says of the first one, as in `-R train` and `--until train`.

    Snakemake provides its options only once it plans jobs.
    """
    first, *others = map(workflow.modifier.modify_rulename, names)
    dag = workflow.dag
    if first in {forced.name for forced in dag.forcerules}:
        dag.forcerules.update(map(workflow.get_rule, others))
    for rules_of_option in (dag.untilrules, dag.omitrules):
        if first in rules_of_option:
            rules_of_option.update(others)


def data_for(names):
    """Return the prepared data, and first let these rules share the options of Snakemake."""
    share_options(names)
    return study.paths.prepared_data


def of_first_run(rule_of_runs, function):
    """Return a function of wildcards: a function of the first run of the job, which has the setting of all."""
    return lambda wildcards: function(rule_of_runs.runs_of(wildcards)[0])


def of_runs(rule_of_runs, function):
    """Return a function of wildcards: a function of all runs of the job."""
    return lambda wildcards: function(rule_of_runs.runs_of(wildcards))


def list_states(runs):
    """Return the points at which each of the runs saves its state."""
    return ";".join(" ".join(study.plan.branch_points(run)) for run in runs)


# Beside what Snakemake knows of the jobs; deleting either loses nothing but time.
CODE_CACHE = Path(".snakemake", "batchscape-code.jsonl").absolute()


@cache
def hash_code(script, *modules, other_files=()):
    """Return the fingerprint of a job's code: its script, modules that this imports by name, and other files."""
    file = ROOT / "workflow" / "scripts" / script
    if not file.exists():  # the workflow is remote, and Snakemake fetches the script
        file = Path(workflow.source_path(f"../scripts/{script}"))
    return fingerprint(
        file, *map(module_path, modules), *other_files, cache_file=CODE_CACHE
    )


def on_cluster():
    """Return whether jobs of this invocation run on a cluster, also in a dry run and in such a job itself."""
    # In a dry run Snakemake replaces the executor; only this setting is left of it.
    would_submit = workflow.dryrun and workflow.execution_settings.use_threads
    return workflow.remote_exec or workflow.non_local_exec or would_submit


def requested_gpus(count):
    """Return how many GPUs a job requests: `accelerator: auto` requests none from a cluster, else all it would use."""
    return 0 if on_cluster() and study.training.accelerator == "auto" else count


def list_all_files(wildcards):
    """Return all that the study makes, and print the plan: only when Snakemake plans it knows where the jobs run."""
    print_plan()
    return study.paths.outputs


def shares_files():
    """Return whether jobs read and write in the folder of the study itself."""
    shared = workflow.storage_settings.shared_fs_usage
    return SharedFSUsage.INPUT_OUTPUT in shared


# Otherwise Snakemake copies to a job what its rule declares as input, and from it what that declares as output. With a
# shared file system, jobs read the other files of a run where they are: Snakemake deletes declared outputs before each job,
# and a run could not be resumed or reused.
SHARES_FILES = shares_files()


def copied_outputs(summaries):
    """Return what a job that trains declares besides the run.json and the history.csv of its runs."""
    if SHARES_FILES:
        return []
    files = [beside(summary, "update_norms.npy") for summary in summaries]
    return files + [
        directory(beside(summary, name))
        for summary in summaries
        for name in study.paths.weights_folders
    ]


def copied_inputs(summaries, with_summaries=False):
    """Return what a job that analyzes runs declares besides their run.json: all other files that analyses read.

    With `with_summaries` also the run.json, for a job that finds its runs in a table.
    """
    if SHARES_FILES:
        return []
    names = ["history.csv", "update_norms.npy", *study.paths.weights_folders]
    names += ["run.json"] if with_summaries else []
    return [beside(summary, name) for summary in summaries for name in names]


def list_histories():
    """Return the history of each run, where `copied_inputs` has not all files."""
    histories = [study.paths.run_file(run, "history.csv") for run in study.runs]
    return histories if SHARES_FILES else []


def beside(file, name):
    return str(Path(file).with_name(name))
