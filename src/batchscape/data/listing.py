"""The files below a folder, without what systems and cameras leave there."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

# Names, in lower case, that systems create beside a user's files. Only names that are never a class: `trash`,
# `recycle` and `misc` are classes of public datasets.
CLUTTER = {
    # Windows: thumbnails, folder settings, recycle bins, fragments that a disk check recovered
    *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "$recycle.bin", "recycler", "recycled"),
    *("system volume information", "found.000"),
    # macOS
    *("__macosx", "icon\r", "network trash folder", "temporary items"),
    # Linux, Python
    *("lost+found", "__pycache__"),
    # Network drives: Synology, QNAP, NetApp
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
# Thumbnails that cameras write beside videos and raw images.
CLUTTER_SUFFIXES = (".thm",)


def is_clutter(path: str) -> bool:
    """Return whether a file is hidden, or was created by a system or a camera, or is in a folder of this kind."""
    path = path.lower()
    return path.endswith(CLUTTER_SUFFIXES) or any(part in CLUTTER or part.startswith(".") for part in path.split("/"))


def list_files(folder: Path) -> Iterator[str]:
    """Yield the paths of all files below a folder, relative to it, with `/`, in order.

    Symbolic links are followed, except links to a folder that contains them. A folder that cannot be listed is yielded
    itself.
    """
    unreadable: list[str] = []
    for parent, folders, names in os.walk(
        folder, followlinks=True, onerror=lambda error: unreadable.append(error.filename)
    ):
        folders[:] = sorted(name for name in folders if not _is_symlink_loop(Path(parent, name)))
        relative = Path(parent).relative_to(folder)
        yield from ((relative / name).as_posix() for name in sorted(names))
    yield from (Path(name).relative_to(folder).as_posix() for name in unreadable if Path(name) != folder)


def _is_symlink_loop(folder: Path) -> bool:
    return folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())


def stat_digest(path: Path) -> str:
    """Return a hash of the names, sizes and modification times of a file, or of the files below a folder.

    Clutter and missing files are ignored. Takes about 0.2 s for 25,000 files.
    """
    names = [name for name in list_files(path) if not is_clutter(name)] if path.is_dir() else [""]
    digest = hashlib.sha256()
    for name in names:
        file = path / name if name else path
        if file.exists():
            stat = file.stat()
            digest.update(os.fsencode(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n"))  # not every name is UTF-8
    return digest.hexdigest()[:16]
