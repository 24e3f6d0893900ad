"""What Slurm says: its commands, and the job in which this process is.

It is asked about the job, for the environment does not tell: that of a job step is of the step, and what else is there
depends on the version of Slurm and on who started the step.
"""

import os
import subprocess
from datetime import datetime

from batchscape.runtime.environment_variables import sanitize_variables


def job_end_time() -> float | None:
    """Return when Slurm ends this job, in seconds since 1970; None outside of one, and without a time limit."""
    try:
        return datetime.fromisoformat(_query_squeue("%e")).timestamp()
    except ValueError:  # `NOT_SET`, or no answer
        return None


def job_num_nodes() -> int:
    """Return how many nodes this job has; 0 outside of one."""
    answer = _query_squeue("%D")
    return int(answer) if answer.isdigit() else 0


def _query_squeue(field: str) -> str:
    """What squeue prints for a field of this job, nothing where there is none to ask about."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return ""
    try:
        answer = run_slurm("squeue", "--noheader", f"--jobs={job}", f"--format={field}", timeout=60).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.strip().rpartition("\n")[2].strip()  # with SLURM_CLUSTERS a line before it names the cluster


def run_slurm(*command: str, timeout: float | None = None) -> subprocess.CompletedProcess[str]:
    """Run one of Slurm's commands, whatever the user has set of how they answer."""
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        env=sanitize_variables(os.environ),
    )
