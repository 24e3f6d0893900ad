"""The files below a folder, as a data source sees them."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

# What systems keep beside the files of a user, in small letters. Only names that nobody gives a class: `trash`,
# `recycle` and `misc` are classes of public sets.
CLUTTER = {
    # Windows: thumbnails, settings of folders, waste baskets, parts that a disk check found
    *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "$recycle.bin", "recycler", "recycled"),
    *("system volume information", "found.000"),
    # macOS
    *("__macosx", "icon\r", "network trash folder", "temporary items"),
    # Linux, Python
    *("lost+found", "__pycache__"),
    # network drives: Synology, QNAP, NetApp
    *(
        "@eadir",
        "#recycle",
        "#snapshot",
        "@tmp",
        "@sharebin",
        "@sharesnap",
        "@synoresource",
        "@recycle",
        "@recently-snapshot",
        "@transcode",
        "~snapshot",
    ),
}
# Thumbnails that cameras write beside films and raw images.
CLUTTER_SUFFIXES = (".thm",)


def is_clutter(path: str) -> bool:
    """Say whether a file is none of the user's: hidden, or kept by a system or a camera, or in a folder that is."""
    path = path.lower()
    return path.endswith(CLUTTER_SUFFIXES) or any(part in CLUTTER or part.startswith(".") for part in path.split("/"))


def list_files(folder: Path) -> Iterator[str]:
    """Yield the paths of all files below a folder, relative to it, with `/`, in order.

    Links are followed, but not one to a folder that it is in. A folder that cannot be listed is yielded itself.
    """
    closed: list[str] = []
    for parent, folders, names in os.walk(
        folder, followlinks=True, onerror=lambda error: closed.append(error.filename)
    ):
        folders[:] = sorted(name for name in folders if not _is_symlink_loop(Path(parent, name)))
        inside = Path(parent).relative_to(folder)
        yield from ((inside / name).as_posix() for name in sorted(names))
    yield from (Path(name).relative_to(folder).as_posix() for name in closed if Path(name) != folder)


def _is_symlink_loop(folder: Path) -> bool:
    return folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())


def stat_digest(path: Path) -> str:
    """Return what a file or folder looks like from outside: a hash of names, sizes and times of change.

    Clutter does not count, nor does what does not exist. 25,000 files take about 0.2 s.
    """
    names = [name for name in list_files(path) if not is_clutter(name)] if path.is_dir() else [""]
    digest = hashlib.sha256()
    for name in names:
        file = path / name if name else path
        if file.exists():
            stat = file.stat()
            digest.update(os.fsencode(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n"))  # not every name is UTF-8
    return digest.hexdigest()[:16]
