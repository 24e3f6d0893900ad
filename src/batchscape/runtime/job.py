"""The log, lock, states and error reporting of every job of the workflow."""

from batchscape.runtime.startup import finish_startup

import errno
import gc
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TextIO

from batchscape.errors import UserError, is_out_of_memory
from batchscape.runtime.environment_variables import sanitize_environment
from batchscape.runtime.loaded_code import require_unedited_code
from batchscape.runtime.lock import job_lock
from batchscape.runtime.states import (
    COMPLETE,
    FAILED,
    INTERRUPTED,
    STOPPED,
    read_states,
    record_state,
    recorded_states,
)

# Before the job imports the libraries that read them.
sanitize_environment()

# Searched for in the text, because some libraries wrap the system's error in one of their own.
DISK_FULL_MESSAGES = tuple(os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT))

log = logging.getLogger(__name__)


@contextmanager
def job_log(path: str | Path) -> Iterator[Callable[[str], None]]:
    """Redirect everything that the process prints to a log file while the block runs.

    The log ends with the time that the job took, or with the error: one line for a `UserError`, a traceback for any
    other exception, and both for a `UserError` that has a cause. The terminal shows warnings and, for any error, one
    line, even if a full disk prevents the log. The states of the job are recorded in `batchscape.runtime.states`.

    If another process holds the lock of this log, such as a job of a Snakemake that was killed, wait until it ends.

    Args:
        path: The log file. Its folder is created.

    Yields:
        A function that prints a line to both the log and the terminal.

    Raises:
        SystemExit: With status 1, if the block raises an exception.
    """
    _finish_startup_once()
    start, cpu_start = time.monotonic(), _cpu_seconds()
    startup_cpu_seconds = cpu_start - _logged.cpu_seconds
    terminal = _terminal()
    target = Path(path)

    def report_wait() -> None:
        print(f"{path}: another process is running this job; waiting for it to end", file=terminal, flush=True)

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with (
            job_lock(target, report_wait) as is_locked,
            recorded_states(target),
            target.open("w", buffering=1, encoding="utf-8") as stream,
        ):

            def echo(line: str) -> None:
                print(line, file=stream)
                print(line, file=terminal, flush=True)

            # Duplicated, not replaced: libraries written in C print to the descriptors.
            os.dup2(stream.fileno(), sys.stdout.fileno())
            os.dup2(stream.fileno(), sys.stderr.fileno())
            with _logging_to(stream, terminal):
                if not is_locked:
                    log.warning(
                        "this file system has no locks; do not start a second Snakemake on this study meanwhile"
                    )
                try:
                    require_unedited_code()
                    yield echo
                except Exception as error:
                    with suppress(OSError):
                        stream.write(_format_error(error))
                    record_state(FAILED, message=_first_line(error))
                    raise
                except BaseException:
                    record_state(INTERRUPTED)
                    raise
            seconds, cpu_seconds = time.monotonic() - start, _cpu_seconds() - cpu_start
            with suppress(OSError):
                stream.write(
                    f"took {seconds:.2f} s ({cpu_seconds:.2f} s CPU); startup took {startup_cpu_seconds:.2f} s CPU\n"
                )
            record_state(COMPLETE)
    except Exception as error:
        # Flushed, because a caller that holds `echo` keeps the stream until the process ends, which flushes it no more.
        print(_summarize_error(error, path), file=terminal, flush=True)
        sys.exit(1)
    finally:
        _logged.cpu_seconds = _cpu_seconds()


def run_in_turn(
    logs: Sequence[str | Path], devices: Callable[[], AbstractContextManager[object]], work: Callable[[int], None]
) -> None:
    """Do the parts of a job one after the other, each with a log, a lock and states of its own, as in `job_log`.

    A part that fails does not prevent the next ones, unless it stopped before the time limit of the job.

    Args:
        logs: The log of each part.
        devices: Returns what holds the devices of the process: it is entered once, in the first part, where a wait for
            devices is recorded, and left after the last part, because a process cannot change its devices.
        work: Does a part, whose index it is given.

    Raises:
        SystemExit: With status 1, at the end, if a part failed.
    """
    has_devices = has_failed = False
    with ExitStack() as held:
        for index, path in enumerate(logs):
            try:
                with job_log(path):
                    if not has_devices:
                        held.enter_context(devices())
                        has_devices = True
                    work(index)
            except SystemExit:
                has_failed = True
                if any(each["state"] == STOPPED for each in read_states(Path(path))):
                    break
            gc.collect()  # Lightning modules are in reference cycles, together with their data
    if has_failed:
        sys.exit(1)


class _Logged:
    """What the logs of this process account for so far: the startup of its second log has nothing of the first."""

    cpu_seconds = 0.0


_logged = _Logged()


@cache
def _finish_startup_once() -> None:
    """Call `finish_startup`: a second call would exclude the garbage of earlier work from its collection."""
    finish_startup()


@cache
def _terminal() -> TextIO:
    """Return the standard error that the process was started with."""
    return os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding="utf-8")


@contextmanager
def _logging_to(stream: TextIO, terminal: TextIO) -> Iterator[None]:
    """Log to a stream, and warnings of the library also to the terminal."""
    handler, terminal_handler = logging.StreamHandler(stream), logging.StreamHandler(terminal)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    terminal_handler.setLevel(logging.WARNING)
    root, library = logging.getLogger(), logging.getLogger("batchscape")
    root.setLevel(logging.WARNING)
    library.setLevel(logging.INFO)
    root.addHandler(handler)
    library.addHandler(terminal_handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        library.removeHandler(terminal_handler)


def _cpu_seconds() -> float:
    """Return the CPU time so far of this process and of its child processes that have ended."""
    return sum(os.times()[:4])


def _format_error(error: Exception) -> str:
    """Return the text of an error for the log."""
    if not isinstance(error, UserError):
        return "".join(traceback.format_exception(error))
    cause = "".join(traceback.format_exception(error.__cause__)) if error.__cause__ else ""
    return f"{cause}{error}\n"


def _first_line(error: Exception) -> str:
    """Return the message for the user, or the line of a traceback that names the exception."""
    if isinstance(error, UserError):
        return str(error)
    lines = "".join(traceback.format_exception_only(error)).splitlines()
    return next((line for line in lines if not line.startswith(" ")), type(error).__name__)


def _summarize_error(error: Exception, log: str | Path) -> str:
    """Return the line for the terminal."""
    if isinstance(error, UserError):
        return str(error)
    text = " ".join(str(error).split())
    if any(message in text for message in DISK_FULL_MESSAGES):
        return f"{log}: the disk is full ({text}); free space, then rerun the same command to resume"
    if is_out_of_memory(error):
        return f"{log}: out of memory; run fewer jobs at once or use more memory, then rerun the same command to resume"
    return f"{log}: {type(error).__name__}: {text}"
