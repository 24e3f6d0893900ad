"""The log, lock, states and error reporting of every job of the workflow."""

from batchscape.runtime.startup import finish_startup

import errno
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from batchscape.errors import UserError, is_out_of_memory
from batchscape.runtime.environment_variables import sanitize_environment
from batchscape.runtime.lock import job_lock
from batchscape.runtime.states import COMPLETE, FAILED, INTERRUPTED, record_state, recorded_states

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
    finish_startup()
    start, startup_cpu_seconds = time.monotonic(), _cpu_seconds()
    terminal = os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding="utf-8")
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
            logging.basicConfig(
                stream=stream, level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S"
            )
            logging.getLogger("batchscape").setLevel(logging.INFO)
            terminal_handler = logging.StreamHandler(terminal)
            terminal_handler.setLevel(logging.WARNING)
            logging.getLogger("batchscape").addHandler(terminal_handler)
            if not is_locked:
                log.warning("this file system has no locks; do not start a second Snakemake on this study meanwhile")
            try:
                yield echo
            except Exception as error:
                with suppress(OSError):
                    stream.write(_format_error(error))
                record_state(FAILED, message=_first_line(error))
                raise
            except BaseException:
                record_state(INTERRUPTED)
                raise
            seconds, cpu_seconds = time.monotonic() - start, _cpu_seconds() - startup_cpu_seconds
            with suppress(OSError):
                stream.write(
                    f"took {seconds:.2f} s ({cpu_seconds:.2f} s CPU); startup took {startup_cpu_seconds:.2f} s CPU\n"
                )
            record_state(COMPLETE)
    except Exception as error:
        # Flushed, because a caller that holds `echo` keeps the stream until the process ends, which flushes it no more.
        print(_summarize_error(error, path), file=terminal, flush=True)
        sys.exit(1)


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
