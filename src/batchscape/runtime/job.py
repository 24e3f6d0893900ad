"""What every job of the workflow does around its work: its log, and how it fails."""

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

# Before the job imports the libraries that read them.
sanitize_environment()

# Looked for in the text, for some libraries wrap the error of the system in one of their own.
FULL = tuple(os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT))

log = logging.getLogger(__name__)


@contextmanager
def job_log(path: str | Path) -> Iterator[Callable[[str], None]]:
    """Send all that the process prints to a log file; end it with status 1 when the work fails.

    The log ends with what the job took, or with what went wrong: one line for a UserError, a traceback for anything
    else, and both for a UserError that has a cause, which it may mistake. The terminal shows one line in any case, also
    where a full disk leaves no log, and warnings. What else the work wants to be seen there too, it gives to the
    function that this yields.

    A Snakemake that was killed leaves its jobs at work; the same job of the next one waits until they are done.
    """
    finish_startup()
    entered, to_start = time.monotonic(), _cpu_seconds()
    terminal = os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding="utf-8")
    target = Path(path)

    def wait() -> None:
        print(f"{path}: an earlier job is still at work on this; waiting", file=terminal, flush=True)

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with job_lock(target, wait) as held, target.open("w", buffering=1, encoding="utf-8") as stream:

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
            on_terminal = logging.StreamHandler(terminal)
            on_terminal.setLevel(logging.WARNING)
            logging.getLogger("batchscape").addHandler(on_terminal)
            if not held:
                log.warning("no lock: the file system has none; run no second Snakemake on this study meanwhile")
            try:
                yield echo
            except Exception as error:
                with suppress(OSError):
                    stream.write(_told(error))
                raise
            took, worked = time.monotonic() - entered, _cpu_seconds() - to_start
            with suppress(OSError):
                stream.write(f"took {took:.2f} s, of CPU {worked:.2f} s, and {to_start:.2f} s before that to start\n")
    except Exception as error:
        # Flushed, for who holds `echo` keeps the stream until the process ends, which then flushes it no more.
        print(_in_one_line(error, path), file=terminal, flush=True)
        sys.exit(1)


def _cpu_seconds() -> float:
    """Return the CPU time of this process until now, and of those that it started and that have ended."""
    return sum(os.times()[:4])


def _told(error: Exception) -> str:
    """Return what the log says of an error."""
    if not isinstance(error, UserError):
        return "".join(traceback.format_exception(error))
    cause = "".join(traceback.format_exception(error.__cause__)) if error.__cause__ else ""
    return f"{cause}{error}\n"


def _in_one_line(error: Exception, log: str | Path) -> str:
    if isinstance(error, UserError):
        return str(error)
    text = " ".join(str(error).split())
    if any(reason in text for reason in FULL):
        return f"{log}: the disk is full ({text}); free space, then the same command goes on"
    if is_out_of_memory(error):
        return f"{log}: out of memory; run fewer jobs at once or use more memory, then the same command resumes"
    return f"{log}: {type(error).__name__}: {text}"
