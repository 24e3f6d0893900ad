"""The files below a folder, as a data source sees them."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

# What file managers leave behind.
CLUTTER = {"thumbs.db", "desktop.ini", "ehthumbs.db"}


def is_clutter(path: str) -> bool:
    """Say whether a file is none of the user's: left by a file manager, or hidden, or in a folder that is."""
    return any(part.lower() in CLUTTER or part.startswith((".", "__MACOSX")) for part in path.split("/"))


def files_below(folder: Path) -> Iterator[str]:
    """Yield the paths of all files below a folder, relative to it, with `/`, in order.

    Links are followed, but not one to a folder that it is in. A folder that cannot be listed is yielded itself.
    """
    closed: list[str] = []
    for parent, folders, names in os.walk(
        folder, followlinks=True, onerror=lambda error: closed.append(error.filename)
    ):
        folders[:] = sorted(name for name in folders if not _is_circle(Path(parent, name)))
        inside = Path(parent).relative_to(folder)
        yield from ((inside / name).as_posix() for name in sorted(names))
    yield from (Path(name).relative_to(folder).as_posix() for name in closed if Path(name) != folder)


def _is_circle(folder: Path) -> bool:
    return folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())


def state_of(path: Path) -> str:
    """Return what a file or folder looks like from outside: a hash of names, sizes and times of change.

    Clutter does not count, nor does what does not exist. 25,000 files take about 0.2 s.
    """
    names = [name for name in files_below(path) if not is_clutter(name)] if path.is_dir() else [""]
    digest = hashlib.sha256()
    for name in names:
        file = path / name if name else path
        if file.exists():
            stat = file.stat()
            digest.update(os.fsencode(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n"))  # not every name is UTF-8
    return digest.hexdigest()[:16]
