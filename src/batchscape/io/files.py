"""Files that are whole or not there: written beside their place, synced, then renamed into it."""

import glob
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from batchscape.errors import UserError

# Of a file system that several share, only those of this one can be seen to run.
MACHINE = socket.gethostname().partition(".")[0]


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file in the target's folder, sync it, and put it in the target's place.

    What a process of this machine that was killed left of the same file is deleted. An OSError, as of a full disk,
    names the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        machine, _, process = left.name.split(".")[-2].rpartition("-")
        if machine == MACHINE and not _is_running(process):
            left.unlink(missing_ok=True)
    partial = path.with_name(f".{path.name}.{MACHINE}-{os.getpid()}.partial")
    try:
        write(partial)
        with partial.open("rb") as stream:
            os.fsync(stream.fileno())
        partial.replace(path)
    except OSError as error:
        if error.errno is not None and error.filename is None:  # an error of a download has neither
            error.filename = str(path)
        raise
    finally:
        partial.unlink(missing_ok=True)


def _is_running(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, ValueError):  # another user's; or no number, so none of these files
        pass
    return True


def write_bytes(path: Path, content: bytes) -> None:
    write_atomically(path, lambda partial: partial.write_bytes(content))


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write JSON; a number that is not finite is an error, for JSON has none (use None)."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path, kind: type[BaseModel], mend: str) -> dict[str, Any]:
    """Return the object that a JSON file holds, if it is of this kind.

    Raises UserError when the file is missing, damaged or of another kind; `mend` says what to do then.
    """
    try:
        content = path.read_bytes()
        kind.model_validate_json(content)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {mend}")
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        what = ": ".join(filter(None, [".".join(map(str, first["loc"])), first["msg"]]))
        raise UserError(f"{path}: is not as it was written ({' '.join(what.split())}); {mend}")
    return json.loads(content)
