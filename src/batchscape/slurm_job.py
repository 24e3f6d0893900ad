"""What Slurm says of the job in which this process is.

It is asked, for the environment does not tell: that of a job step is of the step, and what else is there depends on the
version of Slurm and on who started the step.
"""

import os
import subprocess
from datetime import datetime


def end_of_job() -> float | None:
    """Return when Slurm ends this job, in seconds since 1970; None outside of one, and without a time limit."""
    try:
        return datetime.fromisoformat(_asked("%e")).timestamp()
    except ValueError:  # `NOT_SET`, or no answer
        return None


def nodes_of_job() -> int:
    """Return how many nodes this job has; 0 outside of one."""
    answer = _asked("%D")
    return int(answer) if answer.isdigit() else 0


def _asked(field: str) -> str:
    """What squeue prints for a field of this job, nothing where there is none to ask about."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return ""
    command = ["squeue", "--noheader", f"--jobs={job}", f"--format={field}"]
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
        ).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""
