"""The Optuna journal of a search: the file in which a killed job leaves its trials."""

import json
import os
from contextlib import suppress
from pathlib import Path

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from batchscape.errors import UserError


def open_journal(path: Path) -> JournalStorage:
    """Open a journal, or create it.

    Only one job at a time may use it, which the lock of the job ensures: a lock that a killed job left is released.

    Args:
        path: The file.

    Returns:
        The storage of the trials.

    Raises:
        UserError: The file is corrupt.
    """
    _truncate_partial_line(path)
    # A lock file, not a symbolic link as is Optuna's default: some file systems have no links.
    lock = JournalFileOpenLock(str(path.resolve()))
    with suppress(RuntimeError):  # it was not locked
        lock.release()
    try:
        if path.exists():  # Optuna silently ignores a last line that is not JSON, and would append to it
            for line in path.read_text(encoding="utf-8").splitlines():
                json.loads(line)
        return JournalStorage(JournalFileBackend(str(path.resolve()), lock))
    except Exception as error:  # replaying corrupt lines may fail in any way
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UserError(f"{path}: the search journal is corrupt or incomplete ({reason}); delete it to search again")


def _truncate_partial_line(path: Path) -> None:
    """Remove an incomplete last line, as a full disk leaves it: Optuna would read nothing that follows it."""
    content = path.read_bytes() if path.exists() else b""
    if content and not content.endswith(b"\n"):
        os.truncate(path, content.rfind(b"\n") + 1)  # which needs no space on the disk
