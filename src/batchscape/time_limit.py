"""When a job must end."""

import os
import subprocess
from datetime import datetime


def end_of_slurm_job() -> float | None:
    """Return when Slurm ends the job in which this process is, in seconds since 1970.

    None outside of Slurm, without a time limit, and where Slurm does not say. It is asked, for neither the resources of
    a rule nor the environment of every version of Slurm know what limit the job was given and when it began.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return None
    command = ["squeue", "--noheader", f"--jobs={job}", "--format=%e"]
    try:
        asked = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
        return datetime.fromisoformat(asked.stdout.strip()).timestamp()
    except (OSError, subprocess.TimeoutExpired, ValueError):  # ValueError: `NOT_SET`
        return None
