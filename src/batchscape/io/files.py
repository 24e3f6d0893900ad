"""Files: atomic writes (a temporary file in the same folder is written, synced and renamed), JSON, and hashes."""

import glob
import hashlib
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from batchscape.errors import UserError

# Several machines may share the file system, and only processes of this one can be checked.
MACHINE = socket.gethostname().partition(".")[0]


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Replace a file by what `write` writes to the path that it gets: completely, or not at all.

    Temporary files of the same target that killed processes of this machine left are deleted. An OSError, such as for a
    full disk, names the target.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        machine, _, process = leftover.name.split(".")[-2].rpartition("-")
        if machine == MACHINE and not _is_running(process):
            leftover.unlink(missing_ok=True)
    partial = path.with_name(f".{path.name}.{MACHINE}-{os.getpid()}.partial")
    try:
        write(partial)
        with partial.open("rb") as stream:
            os.fsync(stream.fileno())
        partial.replace(path)
    except OSError as error:
        if error.errno is not None and error.filename is None:  # a download's error has neither
            error.filename = str(path)
        raise
    finally:
        partial.unlink(missing_ok=True)


def _is_running(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, ValueError):  # another user's process, or not a number: not one of these files
        pass
    return True


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes atomically."""
    write_atomically(path, lambda partial: partial.write_bytes(content))


def write_text(path: Path, text: str) -> None:
    """Write text atomically, as UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON; raise ValueError for a number that is not finite, which JSON cannot represent."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path, schema: type[BaseModel], hint: str) -> dict[str, Any]:
    """Return the content of a JSON file.

    Raises UserError, which ends with `hint` on what to do, if the file is missing, corrupt or does not match `schema`.
    """
    try:
        content = path.read_bytes()
        schema.model_validate_json(content)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {hint}")
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        reason = ": ".join(filter(None, [".".join(map(str, first["loc"])), first["msg"]]))
        raise UserError(f"{path}: does not match its schema ({' '.join(reason.split())}); {hint}")
    return json.loads(content)


def hash_file(path: Path) -> str:
    """Return the SHA-256 digest of the content of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
