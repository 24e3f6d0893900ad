"""`batchscape cancel`: cancel the Slurm jobs that a killed Snakemake left in a folder."""

import time
from pathlib import Path

from batchscape.errors import UserError
from batchscape.runtime.slurm import run_slurm

# As in profiles/slurm.
JOB_NAME_PREFIX = "batchscape_"
# Seconds.
POLL_INTERVAL = 1.0


def cancel(folder: Path, prefix: str = JOB_NAME_PREFIX) -> list[str]:
    """Cancel jobs that this user submitted from a folder, and wait until they have ended.

    Only jobs whose name starts with `prefix`; all jobs of one Snakemake have the same name. Returns a line for each
    job. Raises UserError if Slurm is missing or refuses.
    """
    jobs = _jobs(folder, prefix)
    if jobs:
        _run("scancel", *jobs)
    while _jobs(folder, prefix):
        time.sleep(POLL_INTERVAL)
    return [f"cancelled {number}, {comment}" for number, comment in jobs.items()]


def _jobs(folder: Path, prefix: str) -> dict[str, str]:
    """Return the comments of the jobs that were submitted from a folder and have not ended, by job number."""
    # Without `--states`, squeue lists all jobs that have not ended, also those that are completing and may still write.
    output = _run("squeue", "--me", "--noheader", "--format=%i|%j|%k|%Z")
    rows = [line.split("|", 3) for line in output.splitlines() if "|" in line]  # other lines name a cluster
    return {
        number: comment
        for number, name, comment, working_directory in rows
        if name.startswith(prefix) and Path(working_directory).resolve() == folder.resolve()
    }


def _run(*command: str) -> str:
    try:
        completed = run_slurm(*command)
    except FileNotFoundError:
        raise UserError(f"{command[0]}: is not found; run this on a login node of the Slurm cluster") from None
    if completed.returncode:
        message = " ".join(completed.stderr.split())
        raise UserError(f"{command[0]}: {message}; try again later, or ask your administrators")
    return completed.stdout
