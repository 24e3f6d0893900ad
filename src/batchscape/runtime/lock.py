"""Locks of files, and that of a job, by which the same job of another Snakemake waits for it.

Not every file system has locks. Where there are none nothing waits: a missing lock must not keep a user from working,
and is reported to who asked for it.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def is_running(log: Path) -> bool:
    """Say whether a job with this log is at work, whoever started it."""
    try:
        descriptor = os.open(_lock_path(log), os.O_RDONLY)
    except OSError:
        return False
    try:
        return try_lock(descriptor, fcntl.LOCK_SH) is False
    finally:
        os.close(descriptor)


def _lock_path(log: Path) -> Path:
    # Beside the log and not itself, for Snakemake deletes that before it starts a job.
    return log.with_name(f".{log.name}.lock")


@contextmanager
def job_lock(log: Path, on_wait: Callable[[], None]) -> Iterator[bool]:
    """Hold the lock of the job with this log; the kernel frees it when the process ends, however it does.

    Yields whether it is held: False on a file system without locks.
    """
    lock = _lock_path(log)
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        held = try_lock(descriptor, fcntl.LOCK_EX)
        if held is False:
            on_wait()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        # The one before may have deleted it meanwhile, and a third have made and locked another.
        if _is_same_file(descriptor, lock):
            break
        os.close(descriptor)
    try:
        yield held is not None
    finally:
        lock.unlink(missing_ok=True)
        os.close(descriptor)


def _is_same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:  # deleted, of which NFS tells in both ways
        return False


def try_lock(descriptor: int, how: int) -> bool | None:
    """Lock a file without waiting; return False if another one has it, None if the file system has no locks.

    For an exclusive lock the file must be open for writing: NFS refuses any other.
    """
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
