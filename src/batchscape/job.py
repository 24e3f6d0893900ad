"""What every job of the workflow does around its work: its log, and how it fails."""

import errno
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from batchscape.errors import UserError

# Looked for in the text, for some libraries wrap the error of the system in one of their own.
FULL = tuple(os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT))


@contextmanager
def job_log(path: str | Path) -> Iterator[Callable[[str], None]]:
    """Send all that the process prints to a log file; end it with status 1 when the work fails.

    Whatever goes wrong stands in the log: one line for a UserError, a traceback for anything else. The terminal
    shows one line in either case, also where a full disk leaves no log. What the work itself wants to be seen there
    too, it gives to the function that this yields.
    """
    terminal = os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding="utf-8")
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("w", buffering=1, encoding="utf-8") as stream:

            def say(line: str) -> None:
                print(line, file=stream)
                print(line, file=terminal, flush=True)

            # Duplicated, not replaced: libraries written in C print to the descriptors.
            os.dup2(stream.fileno(), sys.stdout.fileno())
            os.dup2(stream.fileno(), sys.stderr.fileno())
            logging.basicConfig(
                stream=stream, level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S"
            )
            logging.getLogger("batchscape").setLevel(logging.INFO)
            try:
                yield say
            except Exception as error:
                with suppress(OSError):
                    stream.write(f"{error}\n" if isinstance(error, UserError) else traceback.format_exc())
                raise
    except Exception as error:
        terminal.write(f"{_in_one_line(error, path)}\n")
        sys.exit(1)


def _in_one_line(error: Exception, log: str | Path) -> str:
    if isinstance(error, UserError):
        return str(error)
    text = " ".join(str(error).split())
    if any(reason in text for reason in FULL):
        return f"{log}: the disk is full ({text}); free space, then the same command goes on"
    return f"{log}: {type(error).__name__}: {text}"
