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
    rank=r"\d+",
    seed=r"\d+",
    point=POINT_PATTERN,
    factor=r"\d+",
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


@cache
def hash_code(script, *modules, other_files=()):
    """Return the fingerprint of a job's code: its script, modules that this imports by name, and other files."""
    file = ROOT / "workflow" / "scripts" / script
    if not file.exists():  # the workflow is remote, and Snakemake fetches the script
        file = Path(workflow.source_path(f"../scripts/{script}"))
    return fingerprint(file, *map(module_path, modules), *other_files)


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


def copied_outputs(summary):
    """Return what a training declares besides its run.json and history.csv."""
    if SHARES_FILES:
        return []
    folders = [directory(beside(summary, name)) for name in study.paths.weights_folders]
    return [beside(summary, "update_norms.npy"), *folders]


def copied_inputs(summaries):
    """Return what a job that analyzes runs declares besides their run.json: all other files that analyses read."""
    if SHARES_FILES:
        return []
    names = ("history.csv", "update_norms.npy", *study.paths.weights_folders)
    return [beside(summary, name) for summary in summaries for name in names]


def beside(file, name):
    return str(Path(file).with_name(name))
