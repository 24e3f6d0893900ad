"""Image files, one folder a class."""

import hashlib
import logging
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from batchscape.config.data import ImageFolderConfig
from batchscape.data.decode import Unusable, decode
from batchscape.data.listing import files_below, is_clutter
from batchscape.data.source import Entry, Source
from batchscape.errors import UserError

SECONDS_BETWEEN_LINES = 10.0
# Files that wait for a thread: enough to keep all busy, and few enough that memory holds little but the result.
AHEAD = 256

log = logging.getLogger(__name__)


class Files(NamedTuple):
    """The files of a folder or a zip."""

    names: list[str]
    """Paths below it, with `/`, in order."""

    read: Callable[[str], bytes]


class Candidate(NamedTuple):
    """A file, and the class that its folder says."""

    name: str
    label: str


def load(config: ImageFolderConfig, threads: int = 1) -> Source:
    """Return the images below a folder, or in a zip file, in the order of their names.

    Classes are the folders, in order. Raises UserError when there is no such folder or zip, or nothing in it that can
    be used.
    """
    files = open_files(config.path, "data.path")
    candidates, outside = by_class(files.names)
    return usable(config, files, candidates, outside, threads)


def open_files(path: str, key: str) -> Files:
    """Return the files below a folder, or in a zip file. Raises UserError, which names the key, if it is neither."""
    place = Path(path)
    if place.is_dir():
        return Files(list(files_below(place)), lambda name: (place / name).read_bytes())
    try:
        archive = zipfile.ZipFile(place)
        names = sorted(entry.filename for entry in archive.infolist() if not entry.is_dir())
    except FileNotFoundError:
        raise UserError(f"{key}: there is no {path}; paths count from the folder in which the workflow runs")
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"{key}: {path} is neither a folder nor a whole zip file ({' '.join(str(error).split())})")
    if any(entry.flag_bits & 1 for entry in archive.infolist()):
        raise UserError(f"{key}: {path} is encrypted; unpack it and name the folder")
    return Files(names, archive.read)


def by_class(names: Sequence[str]) -> tuple[list[Candidate], list[Entry]]:
    """Sort files into classes; return these, and what stands outside the class folders or is clutter.

    Folders that hold a single folder are gone through; the first that are several are the classes, with all below them.
    """
    paths = {name: PurePosixPath(name) for name in names}
    clutter = {name for name, path in paths.items() if any(is_clutter(part) for part in path.parts)}
    real = [path for name, path in paths.items() if name not in clutter]
    folders = {parent for path in real for parent in path.parents}
    deepest = max((len(folder.parts) for folder in folders), default=0)
    counts = [sum(len(folder.parts) == depth + 1 for folder in folders) for depth in range(deepest)]
    depth = next((depth for depth, count in enumerate(counts) if count > 1), 0)
    candidates, entries = [], []
    for name, path in paths.items():
        if name in clutter:
            entries.append(Entry(name, "", "", "system file: left by a file manager or hidden"))
        elif len(path.parts) < depth + 2:
            entries.append(Entry(name, "", "", "outside the class folders: it has no class"))
        else:
            candidates.append(Candidate(name, path.parts[depth]))
    return candidates, entries


def usable(
    config: ImageFolderConfig, files: Files, candidates: Sequence[Candidate], others: Sequence[Entry], threads: int
) -> Source:
    """Decode the candidates, each once, in parallel, and return those that can be used, with an account of all files.

    Memory is that of the images, uint8, and of some files ahead. Raises UserError when nothing can be used.
    """
    height, width = config.image_size
    channels = 3 if config.colour == "rgb" else 1
    images = np.empty((len(candidates), height, width, channels), np.uint8)

    def work(index: int) -> tuple[str, str]:
        """Put an image in its place; return the hash of the file, and why it cannot be used."""
        try:
            content = files.read(candidates[index].name)
        except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
            return "", f"cannot be read: {' '.join(str(error).split())}"
        digest = hashlib.sha256(content).hexdigest()
        try:
            if config.jfif_only and b"JFIF" not in content[:10]:
                raise Unusable("no JFIF: not in the first ten bytes")
            images[index] = decode(content, (height, width), config.colour, config.fit)
        except Unusable as reason:
            return digest, str(reason)
        return digest, ""

    log.info("%d files to decode in %d threads", len(candidates), threads)
    with ThreadPoolExecutor(threads) as pool:
        results = list(_told(_ahead(pool, work, range(len(candidates))), len(candidates)))
    entries = [
        Entry(candidate.name, digest, candidate.label, reason)
        for candidate, (digest, reason) in zip(candidates, results, strict=True)
    ]
    if config.drop_duplicates:
        entries = without_duplicates(entries)
    entries = without_lone_images(entries)
    kept = [index for index, entry in enumerate(entries) if not entry.reason]
    if not kept:
        kinds = Counter(entry.reason.partition(":")[0] for entry in (*entries, *others))
        found = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common()) or "it holds no files"
        raise UserError(f"data.path: {config.path} has no image that can be used: {found}; give one folder a class")
    if len(kept) < len(images):
        images = images[kept]
    classes = tuple(dict.fromkeys(entries[index].label for index in kept))
    index_of = {label: index for index, label in enumerate(classes)}
    labels = np.array([index_of[entries[index].label] for index in kept], np.int64)
    return Source(images, labels, classes, [*entries, *others])


def without_duplicates(entries: Sequence[Entry]) -> list[Entry]:
    """Drop files whose bytes are those of an earlier one that can be used, so that none is on both sides of a split."""
    first: dict[str, Entry] = {}
    result = []
    for entry in entries:
        original = None if entry.reason else first.setdefault(entry.sha256, entry)
        if original is not None and original is not entry:
            other = "" if original.label == entry.label else f", which is of the class {original.label}"
            entry = entry._replace(reason=f"same file: as {original.file}{other}")
        result.append(entry)
    return result


def without_lone_images(entries: Sequence[Entry]) -> list[Entry]:
    """Drop the image of a class that has no other: it cannot both train and validate."""
    counts = Counter(entry.label for entry in entries if not entry.reason)
    return [
        entry._replace(reason="class of one image: it cannot both train and validate")
        if not entry.reason and counts[entry.label] == 1
        else entry
        for entry in entries
    ]


def _ahead(pool: ThreadPoolExecutor, work: Callable[[int], tuple], indices: Iterable[int]) -> Iterator[tuple]:
    """Yield the results in order, with a bounded number of files in flight."""
    waiting = []
    for index in indices:
        waiting.append(pool.submit(work, index))
        if len(waiting) == AHEAD:
            yield waiting.pop(0).result()
    for future in waiting:
        yield future.result()


def _told(results: Iterator[tuple], count: int) -> Iterator[tuple]:
    """Pass results on, and log every now and then how many there were."""
    started = told = time.perf_counter()
    for done, result in enumerate(results, start=1):
        yield result
        now = time.perf_counter()
        if now - told >= SECONDS_BETWEEN_LINES:
            told = now
            left = (now - started) / done * (count - done)
            log.info("%d of %d files (%d %%), about %.0f s left", done, count, 100 * done // count, left)
    log.info("%d files in %.1f s", count, time.perf_counter() - started)
