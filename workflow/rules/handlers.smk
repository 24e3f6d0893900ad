# What happens before the first job, and after the last one: checks, cleaning up, and the messages on the terminal.

import hashlib
import json
import os
import re
import shlex
import shutil
import sys
from functools import cache
from pathlib import Path

# What jobs save beside their outputs, undeclared, so that a rerun can resume or reuse it.
REUSED_BY_JOBS = (".completed", "resume", "optuna.journal", "trial", ".cache")
MAX_FAILURES = 10


def print_message(*lines):
    print(*lines, sep="\n", file=sys.stderr)


def check_path_characters_of_cluster():
    """Fail if a path has a character that works locally but not on a cluster.

    Snakemake's plugin puts the command of a job into double quotes, and Slurm expands `%` in the path of a log.
    """
    if on_cluster():
        check_path_characters('"$`\\%')


def check_nodes():
    """Fail if a training needs several nodes but jobs run on this machine."""
    nodes = study.resources.nodes
    if nodes > 1 and not on_cluster() and job_num_nodes() < nodes:
        fail(
            f"resources.nodes: {nodes}, but all jobs run on this machine; add "
            "`--workflow-profile profiles/slurm` or write `nodes: 1`"
        )


def check_shared_files():
    """Fail if the executor shares no files, as that for Kubernetes, but the rules were read as if it did."""
    if SHARES_FILES and not shares_files():
        fail(
            "--shared-fs-usage: jobs of this executor share no files; add `--shared-fs-usage none` (docs/executors.md)"
        )


def check_writable(folder):
    """Fail if nothing can be written to a folder, or to the one that it will be created in."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        fail(f"{existing}: is read-only; make it writable and rerun the same command")


def save_study():
    """Write the copy of the study that jobs on a cluster read: its file may be edited while Snakemake runs."""
    if not IS_JOB:
        write_bytes(Path(os.environ[COPY_VARIABLE]), STUDY_CONTENT)


def save_hashes():
    """Write the hashes of the code of all jobs: each of them fails if it imports a file that was edited since."""
    if IS_JOB:
        return
    for job in workflow.dag.needrun_jobs():
        if "code" in job.rule.params.keys():
            job.params  # hashes the code, which Snakemake would do only when the job starts
    content = json.dumps(hashed_files(), sort_keys=True).encode()
    file = COPIES / f"code-{hashlib.sha256(content).hexdigest()[:16]}.json"
    write_bytes(file, content)
    os.environ[CODE_VARIABLE] = str(file)


def delete_reusable_files():
    """Delete what forced jobs (`-F`, `-R`, `-f`) would reuse, so that they compute everything again."""
    if IS_JOB or workflow.touch:
        return  # a job is started with `--force` and must resume; `--touch` computes nothing
    requested, forced_rules = workflow.dag_settings, workflow.dag.forcerules
    names = {*requested.forcerun}
    names |= {*requested.targets} if requested.forcetargets else set()
    paths = set(map(os.path.relpath, names))
    # Not by `reason.forced`: Snakemake also forces jobs that were interrupted, and these must resume.
    forced = [
        job
        for job in workflow.dag.needrun_jobs()
        if job.rule in forced_rules
        or not paths.isdisjoint(map(os.path.relpath, job.output))
    ]
    for folder in {Path(file).parent for job in forced for file in job.output}:
        for path in map(folder.joinpath, REUSED_BY_JOBS):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


@cache
def print_plan():
    """Print how much there is to train, and on how many GPUs."""
    if IS_JOB:
        return
    hint = "; `batchscape check FILE` estimates their time"
    print_message(
        f"{study.name}: {study.plan.describe_trainings()}{hint if workflow.dryrun else ''}",
        study.job_resources.describe_gpus(on_cluster()),
    )
    requested = workflow.dag_settings
    if IS_MODULE and (
        requested.forceall or requested.forcerun or requested.forcetargets
    ):
        print_message(
            f"{study.name}: in a module, -F, -R and -f retrain finished runs only if the outer Snakefile has the handler "
            f"`onstart: {__name__}.onstart()`"
        )


def print_reused():
    """Print how many trainings and searches were reused: their jobs ran, but found all of their work done."""
    jobs = [job for job in workflow.dag.needrun_jobs(exclude_finished=False) if job.log]
    logs = {
        names: [log for job in jobs for log in job.log if f"/logs/{folder}/" in log]
        for folder, names in (
            ("train", ("run", "runs")),
            ("confirm", ("run of the confirmation", "runs of the confirmation")),
            ("tune", ("search", "searches")),
        )
    }
    if not any(logs.values()) or IS_JOB:
        return
    from batchscape.cli.status import count_already_complete

    counts = {names: count_already_complete(paths) for names, paths in logs.items()}
    if any(counts.values()):
        reused = " and ".join(
            f"{count} {names[count > 1]}" for names, count in counts.items() if count
        )
        confirm = " confirm" if study.confirmation_runs else ""
        print_message(
            f"Reused, already complete for the same data, settings and code: {reused}. To train again, add "
            f"`-R train tune{confirm}`."
        )


def print_report_path():
    """Print where the report is, if the target was everything."""
    requested = workflow.dag_settings
    is_everything = set(requested.targets) <= {"all"} and not (
        requested.until or requested.omit_from
    )
    if Path(REPORT).exists() and is_everything and not workflow.remote_exec:
        print_message(f"Report: {REPORT}")


def cancel_orphaned_jobs(snakemake_logs):
    """Cancel the Slurm jobs that Ctrl-C has left: while it waits for `squeue`, Snakemake cancels none.

    Only jobs of this invocation, by the name in its log: another study may run in the same folder.
    """
    name = re.search(r"SLURM run ID: (\S+)", read_logs(snakemake_logs))
    if workflow.remote_exec or name is None:
        return
    from batchscape.cli.cancel import cancel

    try:
        print_message(*cancel(Path.cwd(), name[1]))
    except UserError as error:
        print_message(error)


def print_failures(snakemake_logs):
    """Print why jobs failed and how to resume, below Snakemake's own messages, which on a cluster do not say why."""
    from batchscape.cli.status import summarize_failures

    lines = summarize_failures(read_logs(snakemake_logs), f"{FOLDER}/logs")
    if lines:
        rest = len(lines) - MAX_FAILURES
        more = [f"… and {rest} more"] if rest > 0 else []
        print_message("", "Failed jobs:", *lines[:MAX_FAILURES], *more, "")
    fix = "Fix the errors above and rerun" if lines else "Rerun"
    print_message(f"Finished outputs remain valid. {fix} the same command to resume.")
    if STUDY_FILE and any(
        Path(run_file).exists() for run_file in study.paths.run_summaries
    ):
        print_message(
            f"`batchscape report {shlex.quote(str(STUDY_FILE))}` writes a report of the results so far."
        )


def read_logs(paths):
    return "\n".join(Path(path).read_text(errors="replace") for path in paths)
