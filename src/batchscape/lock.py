"""The lock of a job, by which the same job of another Snakemake waits for it."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def is_at_work(log: Path) -> bool:
    """Say whether a job with this log is at work, whoever started it."""
    try:
        descriptor = os.open(_lock_of(log), os.O_RDONLY)
    except OSError:
        return False
    try:
        return not _taken(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _lock_of(log: Path) -> Path:
    # Beside the log and not itself, for Snakemake deletes that before it starts a job.
    return log.with_name(f".{log.name}.lock")


@contextmanager
def locked(log: Path, when_it_waits: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of the job with this log; the kernel frees it when the process ends, however it does."""
    lock = _lock_of(log)
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        if not _taken(descriptor, fcntl.LOCK_EX):
            when_it_waits()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        # The one before may have deleted it meanwhile, and a third have made and locked another.
        if lock.exists() and os.path.samestat(os.fstat(descriptor), lock.stat()):
            break
        os.close(descriptor)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(descriptor)


def _taken(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        pass
    return True
