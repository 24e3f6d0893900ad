"""Image files, one folder a class."""

import hashlib
import logging
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image

from batchscape.config.data import ImageFolderConfig
from batchscape.data.archive import File, Unusable, opened
from batchscape.data.decode import decoded
from batchscape.data.listing import is_clutter
from batchscape.data.progress import Progress
from batchscape.data.source import Entry, Source
from batchscape.errors import UserError

# Files read ahead for each thread: enough to keep it busy while an image that takes long holds up the order.
AHEAD = 4

# Bytes from a file's beginning that name the JFIF format: start of image, marker, length, and the name.
JFIF_WITHIN = 10

Item = TypeVar("Item")
Result = TypeVar("Result")

log = logging.getLogger(__name__)


class Listed(NamedTuple):
    """A file, and what its name says of it."""

    file: File

    label: str
    """Name of its class; empty if it is in none."""

    reason: str = ""
    """Why it is not used, whatever is in it; empty if it is."""


def load(config: ImageFolderConfig, threads: int = 1) -> Source:
    """Return the images below a folder, or in a zip file: classes in order, and files in order within each.

    Raises UserError if the path is neither, or fewer than two classes have images that can be used.
    """
    with opened(Path(config.path)) as files:
        return read_images(by_class(files), config, threads)


def class_root(names: Sequence[str]) -> str:
    """Return what stands before the folder of the class in the paths of images, with a `/` at its end; or nothing.

    A folder is no class, but around the classes, if it is the only one, has folders in it, and no image beside them.
    """
    root = ""
    while True:
        below = [name.removeprefix(root) for name in names if name.startswith(root) and not is_clutter(name)]
        folders = {name.partition("/")[0] for name in below if "/" in name}
        if len(folders) != 1:
            return root
        deeper = f"{folders.pop()}/"
        inside = [name.removeprefix(deeper) for name in below if name.startswith(deeper)]
        if not any("/" in name for name in inside) or any(_is_image(name) for name in inside if "/" not in name):
            return root
        root += deeper


def by_class(files: Sequence[File]) -> list[Listed]:
    """Return files with the classes that their folders say, in the same order."""
    root = class_root([file.name for file in files])

    def listed(file: File) -> Listed:
        if is_clutter(file.name):
            return Listed(file, "", "system file: of a file manager, or hidden")
        folder, slash, _ = file.name.removeprefix(root).partition("/")
        if not (slash and file.name.startswith(root)):
            return Listed(file, "", "outside the class folders: no class")
        return Listed(file, folder)

    return [listed(file) for file in files]


def read_images(files: Sequence[Listed], config: ImageFolderConfig, threads: int) -> Source:
    """Read, check and decode files, each once, in `threads` threads; classes are in order of their names.

    Images go into one array; beside it only a few for each thread are in memory. Raises UserError if fewer than two
    classes have images that can be used.
    """
    images = _room(sum(not listed.reason for listed in files), config)
    entries: list[Entry] = []
    first: dict[str, Listed] = {}
    count = 0
    log.info("%s: reading %s files, threads: %d", config.path, f"{len(files):,}", threads)
    progress = Progress("files", len(files))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is wrong with a file stands in the manifest
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        found = in_order(lambda listed: _examined(listed, config), files, threads)
        for listed, (digest, pixels, reason) in zip(files, found, strict=True):
            if not reason and config.drop_duplicates:
                reason = _same_as(first.setdefault(digest, listed), listed)
            if not reason:
                images[count] = pixels
                count += 1
            entries.append(Entry(listed.file.name, digest, listed.label, reason))
            progress.update(1)
    progress.close()
    return _with_classes(images[:count], entries, config)


def in_order(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """Yield `function(item)` for each item, in order, computed in threads a few items ahead of what is taken."""
    with ThreadPoolExecutor(threads) as pool:
        ahead: deque = deque()
        for item in items:
            ahead.append(pool.submit(function, item))
            if len(ahead) > AHEAD * threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _is_image(name: str) -> bool:
    format = Image.registered_extensions().get(Path(name).suffix.lower())
    return format in Image.OPEN


def _room(count: int, config: ImageFolderConfig) -> np.ndarray:
    shape = (count, *config.image_size, 3 if config.colour == "rgb" else 1)
    try:
        return np.empty(shape, np.uint8)
    except (MemoryError, ValueError):  # the latter where the number of bytes is none that NumPy can count
        raise UserError(
            f"data.image_size: {count:,} images of {shape[1]} × {shape[2]} pixels need "
            f"{np.prod(shape, dtype=float) / 1e9:,.0f} GB of memory, which there is not; make them smaller"
        )


def _examined(listed: Listed, config: ImageFolderConfig) -> tuple[str, np.ndarray | None, str]:
    """Return a file's SHA-256, its pixels, and why it cannot be used; what there is not is empty."""
    digest, pixels, reason = "", None, listed.reason
    try:
        content = listed.file.read()
        digest = hashlib.sha256(content).hexdigest()
        if not reason:
            if not content:
                raise Unusable("empty file: of zero bytes")
            if config.jfif_only and b"JFIF" not in content[:JFIF_WITHIN]:
                raise Unusable("no JFIF: not in the first ten bytes")
            pixels = decoded(content, config.image_size, config.fit, config.colour)
    except Unusable as error:
        reason = str(error)
    return digest, pixels, reason


def _same_as(first: Listed, listed: Listed) -> str:
    if first is listed:
        return ""
    return f"same file: as {first.file.name}" + (", which is of another class" if first.label != listed.label else "")


def _with_classes(images: np.ndarray, entries: list[Entry], config: ImageFolderConfig) -> Source:
    """Return the source of images, (n, height, width, channels), and entries; both are changed in place."""
    counts = Counter(entry.label for entry in entries if not entry.reason)
    places = [place for place, entry in enumerate(entries) if not entry.reason]
    kept = [index for index, place in enumerate(places) if counts[entries[place].label] > 1]
    for index, old in enumerate(kept):
        if index != old:
            images[index] = images[old]
    for place in places:
        if counts[entries[place].label] == 1:
            why = "class of one image: it cannot be on both sides of the split"
            entries[place] = entries[place]._replace(reason=why)
    classes = sorted(label for label, count in counts.items() if count > 1)
    if len(classes) < 2:
        dropped = Counter(entry.reason.partition(":")[0] for entry in entries if entry.reason)
        why = ", ".join(f"{count:,} {kind}" for kind, count in dropped.most_common())
        found = f"has usable images of one class only ({classes[0]})" if classes else "holds no image that can be used"
        raise UserError(
            f"data.path: {config.path} {found}; of {len(entries):,} files were dropped: {why or 'none'}; "
            "name a folder with two or more folders of images in it, one a class"
        )
    without = sorted({entry.label for entry in entries} - {*classes, ""})
    if without:
        log.warning("no class, for want of images that can be used: %s", ", ".join(without))
    number = {label: index for index, label in enumerate(classes)}
    labels = np.array([number[entry.label] for entry in entries if not entry.reason], np.int64)
    return Source(images[: len(kept)], labels, tuple(classes), entries)
