"""Jobs that tests run in other processes, the states that jobs record, and the file systems that jobs see."""

import json
from pathlib import Path
from typing import Any

# Records the states in its second argument, a JSON list, prints `ready` to its log, and stays.
STAYING_JOB = """
import json, sys, time
from batchscape.runtime.job import job_log
from batchscape.runtime.states import record_state
with job_log(sys.argv[1]):
    for state in json.loads(sys.argv[2]):
        record_state(**state)
    print("ready", flush=True)
    time.sleep(900)
"""


def write_states(log: Path, *states: dict[str, Any]) -> None:
    """Write the states of a job that does not run, and its log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    log.touch()
    log.with_suffix(".jsonl").write_text("".join(f"{json.dumps(state)}\n" for state in states))


# A file system without locks, and one like NFS, on which an exclusive lock requires a file that is open for writing.
NO_LOCKS = """
import errno, fcntl
def flock(descriptor, how):
    raise OSError(errno.ENOLCK, "No locks available")
fcntl.flock = flock
"""
AS_NFS = """
import errno, fcntl, os
real = fcntl.flock
def flock(descriptor, how):
    if how & fcntl.LOCK_EX and fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise OSError(errno.EBADF, "Bad file descriptor")
    if os.path.isdir(f"/proc/self/fd/{descriptor}"):
        raise OSError(errno.EBADF, "Bad file descriptor")
    return real(descriptor, how)
fcntl.flock = flock
"""
