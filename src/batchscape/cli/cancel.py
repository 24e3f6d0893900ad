"""End the Slurm jobs that a Snakemake has left in a folder."""

import time
from pathlib import Path

from batchscape.errors import UserError
from batchscape.runtime.slurm import run_slurm

# As in profiles/slurm.
JOB_NAME_PREFIX = "batchscape_"
SECONDS_BETWEEN_LOOKS = 1.0


def cancel(folder: Path, name: str = JOB_NAME_PREFIX) -> list[str]:
    """Cancel the jobs that this user's Snakemakes submitted from a folder, wait until they have ended, and say which.

    Only those whose name begins so; all jobs of one Snakemake have one name.
    Raises UserError where there is no Slurm, or where it refuses.
    """
    jobs = _jobs(folder, name)
    if jobs:
        _ask("scancel", *jobs)
    while _jobs(folder, name):
        time.sleep(SECONDS_BETWEEN_LOOKS)
    return [f"cancelled {number}, {what}" for number, what in jobs.items()]


def _jobs(folder: Path, beginning: str) -> dict[str, str]:
    """What each job does that was submitted from a folder and has not ended, by its number."""
    # Without `--states` those that have not ended, also those that are being ended and may still write.
    listed = _ask("squeue", "--me", "--noheader", "--format=%i|%j|%k|%Z")
    rows = [line.split("|", 3) for line in listed.splitlines() if "|" in line]  # others name a cluster
    return {
        number: what
        for number, name, what, where in rows
        if name.startswith(beginning) and Path(where).resolve() == folder.resolve()
    }


def _ask(*command: str) -> str:
    try:
        done = run_slurm(*command)
    except FileNotFoundError:
        raise UserError(f"{command[0]}: is not found; run this on a login node of the Slurm cluster") from None
    if done.returncode:
        raise UserError(f"{command[0]}: {' '.join(done.stderr.split())}; ask again later, or your administrators")
    return done.stdout
