"""File locks, and the lock of a job: the same job of another Snakemake waits for it.

Not every file system has locks. Without locks nothing waits: a missing lock must not prevent the work, so the
caller is informed instead.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def is_running(log: Path) -> bool:
    """Return whether a process holds the lock of the job with this log, whoever started it."""
    try:
        descriptor = os.open(_lock_path(log), os.O_RDONLY)
    except OSError:
        return False
    try:
        return try_lock(descriptor, fcntl.LOCK_SH) is False
    finally:
        os.close(descriptor)


def _lock_path(log: Path) -> Path:
    # A file beside the log, because Snakemake deletes the log before it starts a job.
    return log.with_name(f".{log.name}.lock")


@contextmanager
def job_lock(log: Path, on_wait: Callable[[], None]) -> Iterator[bool]:
    """Hold the lock of the job with this log; the kernel releases it when the process ends, however it ends.

    Calls `on_wait` if another process holds it. Yields whether the lock is held: False on a file system without locks.
    """
    lock = _lock_path(log)
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        is_locked = try_lock(descriptor, fcntl.LOCK_EX)
        if is_locked is False:
            on_wait()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        # Its last holder may have deleted the file meanwhile, and a third process may have locked a new one.
        if _is_same_file(descriptor, lock):
            break
        os.close(descriptor)
    try:
        yield is_locked is not None
    finally:
        lock.unlink(missing_ok=True)
        os.close(descriptor)


def _is_same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:  # deleted; on NFS either call may fail
        return False


def try_lock(descriptor: int, operation: int) -> bool | None:
    """Lock a file without waiting; return False if another process holds the lock, None if there are no locks.

    For an exclusive lock the file must be open for writing, as NFS requires.
    """
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
