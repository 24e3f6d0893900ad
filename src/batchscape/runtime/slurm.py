"""Slurm's commands, and the Slurm job that this process runs in.

The job is queried with squeue, because the environment is unreliable: in a job step its variables describe the step,
and which others exist depends on the version of Slurm and on who started the step.
"""

import os
import subprocess
from datetime import datetime

from batchscape.runtime.environment_variables import sanitize_variables


def job_end_time() -> float | None:
    """Return when this job reaches its time limit, in seconds since 1970; None outside a job or without a limit."""
    try:
        return datetime.fromisoformat(_query_squeue("%e")).timestamp()
    except ValueError:  # `NOT_SET`, or no answer
        return None


def job_num_nodes() -> int:
    """Return the number of nodes of this job; 0 outside a job."""
    answer = _query_squeue("%D")
    return int(answer) if answer.isdigit() else 0


def _query_squeue(field: str) -> str:
    """Return what squeue prints for a field of this job; empty outside a job, and if squeue fails."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return ""
    try:
        answer = run_slurm("squeue", "--noheader", f"--jobs={job}", f"--format={field}", timeout=60).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.strip().rpartition("\n")[2].strip()  # with SLURM_CLUSTERS, the line before names the cluster


def run_slurm(*command: str, timeout: float | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command of Slurm without the user's settings of its output."""
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        env=sanitize_variables(os.environ),
    )
