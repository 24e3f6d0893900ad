"""What every job of the workflow does around its work: its log, and how it fails."""

import fcntl
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from batchscape.errors import UserError


@contextmanager
def job_log(path: str | Path) -> Iterator[Callable[[str], None]]:
    """Send all that the process prints to a log file; end it with status 1 when the work fails.

    Whatever goes wrong stands in the log: one line for a UserError, a traceback for anything else, and both for a
    UserError that has a cause, which it may mistake. The terminal shows one line in any case. What the work itself
    wants to be seen there too, it gives to the function that this yields.

    The log is locked as long as the process and those that it started live: a Snakemake that was killed leaves its
    jobs at work, and the same job of the next one waits until they are done.
    """
    terminal = os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding="utf-8")

    def say(line: str) -> None:
        print(line, file=stream)
        print(line, file=terminal, flush=True)

    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("a", buffering=1, encoding="utf-8") as stream:
        _lock(
            stream,
            lambda: print(f"{path}: an earlier job is still at work on this; waiting", file=terminal, flush=True),
        )
        stream.truncate(0)
        # Duplicated, not replaced: libraries written in C print to the descriptors.
        os.dup2(stream.fileno(), sys.stdout.fileno())
        os.dup2(stream.fileno(), sys.stderr.fileno())
        logging.basicConfig(stream=stream, level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
        logging.getLogger("batchscape").setLevel(logging.INFO)
        try:
            yield say
        except UserError as error:
            if error.__cause__:
                stream.write("".join(traceback.format_exception(error.__cause__)))
            stream.write(f"{error}\n")
            terminal.write(f"{error}\n")
            sys.exit(1)
        except Exception as error:
            stream.write(traceback.format_exc())
            terminal.write(f"{path}: {type(error).__name__}: {' '.join(str(error).split())}\n")
            sys.exit(1)


def _lock(stream: IO, when_it_waits: Callable[[], None]) -> None:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        when_it_waits()
        fcntl.flock(stream, fcntl.LOCK_EX)
    except OSError:  # a file system without locks
        pass
