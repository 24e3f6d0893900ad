"""Image files, one folder a class."""

import hashlib
import logging
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image

from batchscape.config.data import ImageFolderConfig
from batchscape.data.archive import SourceFile, UnusableFile, open_archive
from batchscape.data.decode import WHITE_16_BIT, convert_image, decode_image, open_image
from batchscape.data.layout import OUTSIDE, Layout, infer_layout, require_training_classes
from batchscape.data.listing import is_clutter
from batchscape.data.source import ANOTHER_CLASS, ANOTHER_SIDE, ManifestEntry, RawDataset, join_names
from batchscape.data.split import SIDES, TEST, TRAIN, VALIDATION
from batchscape.errors import UserError
from batchscape.runtime.read_progress import Progress

# Files read ahead for each thread: enough to keep it busy while an image that takes long holds up the order.
PREFETCH_PER_THREAD = 4

# Bytes from a file's beginning that name the JFIF format: start of image, marker, length, and the name.
JFIF_WITHIN = 10

ONE_IMAGE = "class of one image: it cannot be on both sides of the split"
UNTRAINED = "unknown class: no image of it trains"

Item = TypeVar("Item")
Result = TypeVar("Result")

log = logging.getLogger(__name__)


class ListedFile(NamedTuple):
    """A file, and what its name says of it."""

    file: SourceFile

    label: str
    """Name of its class; empty if it is in none."""

    reason: str = ""
    """Why it is not used, whatever is in it; empty if it is."""

    side: str = ""
    """The side of the split that its folders put it on, one of SIDES; empty if they give none."""

    repeated: bool = False
    """Whether it stands in a folder that holds the set again."""


class FileContents(NamedTuple):
    """What was found in a file; what there is not is empty."""

    digest: str
    """SHA-256 of its bytes."""

    pixels: np.ndarray | None
    """As `decoded` returns them."""

    brightest: int
    """As that of `Decoded`."""

    is_first: bool
    """As that of `Decoded`."""

    reason: str
    """Why it cannot be used."""


def load(config: ImageFolderConfig, threads: int = 1) -> RawDataset:
    """Return the images below a folder, or in a zip file: classes in order, and files in order within each.

    Raises UserError if the path is neither, or fewer than two classes have images that can be used.
    """
    with open_archive(Path(config.path)) as files:
        listed, layout = assign_classes(files, config.path)
        reject_split_keys(layout, config)
        source = read_images(listed, config, threads)
    return replace(source, notes=(*layout.notes, *source.notes))


def assign_classes(files: Sequence[SourceFile], source: str) -> tuple[list[ListedFile], Layout]:
    """Return files with the classes and sides that their folders say, and the layout of the folders.

    Files are in the same order, but those to train on come before those to validate on and those to test on, and those
    of a folder that repeats the set come last on their side. Raises UserError, which names `source`, as `infer_layout`.
    """
    layout = infer_layout([file.name for file in files if not is_clutter(file.name)], source)

    def placed(file: SourceFile) -> ListedFile:
        if is_clutter(file.name):
            return ListedFile(file, "", "system file: kept by a system or a camera, or hidden")
        place = layout.places[file.name]
        return ListedFile(file, place.label, "" if place.label else OUTSIDE, place.side, place.repeated)

    def rank(each: ListedFile) -> tuple[int, bool]:
        return SIDES.index(each.side) if each.side else len(SIDES), each.repeated

    return sorted(map(placed, files), key=rank), layout


def reject_split_keys(layout: Layout, config: ImageFolderConfig) -> None:
    """Raise UserError if the folders give images to validate on, and the study file asks for a split too."""
    if VALIDATION in layout.side_folders and config.split_keys:
        keys = ", ".join(f"data.{key}" for key in config.split_keys)
        sides = join_names(folder for folders in layout.side_folders.values() for folder in folders)
        raise UserError(
            f"{keys}: cannot be set, for the folders of {config.path} give the split ({sides}); remove "
            f"{'these keys' if len(config.split_keys) > 1 else 'the key'}, or move all images into one folder a class"
        )


def read_images(files: Sequence[ListedFile], config: ImageFolderConfig, threads: int) -> RawDataset:
    """Read, check and decode files, each once, in `threads` threads; classes are in order of their names.

    Files of 16 bits are decoded twice where the white level has to be found. Images go into one array; beside it only a
    few for each thread are in memory. Raises UserError if fewer than two classes have images that can be used.
    """
    images = _allocate(sum(not each.reason and each.side != TEST for each in files), config)
    entries: list[ManifestEntry] = []
    first: dict[str, ListedFile] = {}
    of_16_bits: dict[int, ListedFile] = {}
    of_other_class: Counter[str] = Counter()
    repeated, copied = 0, 0
    count = brightest = firsts = 0
    log.info("%s: reading %s files, threads: %d", config.path, f"{len(files):,}", threads)
    progress = Progress("files", len(files))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is wrong with a file stands in the manifest
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        found = map_in_order(lambda each: _examined(each, config), files, threads)
        for each, (digest, pixels, peak, is_first, reason) in zip(files, found, strict=True):
            if not reason:
                same = first.setdefault(digest, each)
                of_other_class[each.label] += same.label != each.label
                repeated += each.repeated
                copied += each.repeated and same is not each
                brightest = max(brightest, peak)
                firsts += is_first
                reason = _same_as(same, each) if config.drop_duplicates else ""
            if not reason and each.side != TEST:
                if peak:
                    of_16_bits[count] = each
                images[count] = pixels
                count += 1
            entries.append(ManifestEntry(each.file.name, digest, each.label, reason, each.side))
            progress.update(1)
        white = config.white_level or _white_level(brightest)
        if white != (config.white_level or WHITE_16_BIT):
            again = map_in_order(lambda each: _decoded_again(each, config, white), of_16_bits.values(), threads)
            for index, pixels in zip(of_16_bits, again, strict=True):
                images[index] = pixels
    progress.close()
    if 2 * copied < repeated:
        raise UserError(
            f"data.path: {config.path} has folders named like those around them, but only {copied:,} of the "
            f"{repeated:,} images there are copies; move these folders away, or rename them"
        )
    _require_own_images(entries, of_other_class, config)
    source = _with_classes(images[:count], entries, config)
    notes = []
    if firsts:
        notes.append(f"pages: {firsts:,} files hold several images, of which the first one is used")
    if of_16_bits:
        why = "as data.white_level says" if config.white_level else f"their largest value is {brightest:,}"
        note = f"levels: {white:,} is white in {len(of_16_bits):,} files of 16 bits ({why})"
        notes.append(note + ("" if config.white_level else "; data.white_level sets another one"))
    return replace(source, notes=tuple(notes))


def _white_level(brightest: int) -> int:
    """Return the largest value of as few bits as hold `brightest`, 8 at least and 16 at most."""
    return (1 << min(max(brightest.bit_length(), 8), 16)) - 1


def map_in_order(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """Yield `function(item)` for each item, in order, computed in threads a few items ahead of what is taken."""
    with ThreadPoolExecutor(threads) as pool:
        ahead: deque = deque()
        for item in items:
            ahead.append(pool.submit(function, item))
            if len(ahead) > PREFETCH_PER_THREAD * threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _allocate(count: int, config: ImageFolderConfig) -> np.ndarray:
    shape = (count, *config.image_size, 3 if config.color == "rgb" else 1)
    try:
        return np.empty(shape, np.uint8)
    except (MemoryError, ValueError):  # the latter where the number of bytes is none that NumPy can count
        raise UserError(
            f"data.image_size: {count:,} images of {shape[1]} × {shape[2]} pixels need "
            f"{np.prod(shape, dtype=float) / 1e9:,.0f} GB of memory, which there is not; make them smaller"
        )


def _examined(each: ListedFile, config: ImageFolderConfig) -> FileContents:
    digest, pixels, brightest, is_first, reason = "", None, 0, False, each.reason
    try:
        content = each.file.read()
        digest = hashlib.sha256(content).hexdigest()
        if not reason:
            if not content:
                raise UnusableFile("empty file: of zero bytes")
            if config.jfif_only and b"JFIF" not in content[:JFIF_WITHIN]:
                raise UnusableFile("no JFIF: not in the first ten bytes")
            image = open_image(content)
            brightest, is_first = image.brightest, image.is_first
            white = config.white_level or WHITE_16_BIT
            pixels = convert_image(image, config.image_size, config.fit, config.color, white)
    except UnusableFile as error:
        reason = str(error)
    return FileContents(digest, pixels, brightest, is_first, reason)


def _decoded_again(each: ListedFile, config: ImageFolderConfig, white: int) -> np.ndarray:
    try:
        return decode_image(each.file.read(), config.image_size, config.fit, config.color, white)
    except UnusableFile as error:
        raise UserError(f"data.path: {config.path}: {each.file.name} changed while it was read ({error}); run again")


def _same_as(first: ListedFile, each: ListedFile) -> str:
    if first is each:
        return ""
    differs = [ANOTHER_CLASS] * (first.label != each.label) + [ANOTHER_SIDE] * (first.side != each.side)
    return f"same file: as {first.file.name}" + (f", which is {' and '.join(differs)}" if differs else "")


def _require_own_images(
    entries: Sequence[ManifestEntry], of_other_class: Counter[str], config: ImageFolderConfig
) -> None:
    """Raise UserError if half of the images of a class, and more than one, are the same files as those of others."""
    read = Counter(entry.label for entry in entries if not entry.reason or entry.reason.startswith("same file"))
    for label, count in sorted(of_other_class.items()):
        if count > 1 and 2 * count >= read[label]:
            others = {
                entry.reason.partition(": as ")[2].partition(",")[0]
                for entry in entries
                if entry.label == label and ANOTHER_CLASS in entry.reason
            }
            example = f", such as {min(others)}" if others else ""
            raise UserError(
                f"data.path: {config.path} has {count:,} of the {read[label]:,} images of {label} in other classes "
                f"too{example}; remove the folder that repeats what stands in others"
            )


def _with_classes(images: np.ndarray, entries: list[ManifestEntry], config: ImageFolderConfig) -> RawDataset:
    """Return the source of images, (n, height, width, channels), and entries; both are changed in place."""
    given = any(entry.side == VALIDATION for entry in entries)
    used = [place for place, entry in enumerate(entries) if not entry.reason]
    counts = Counter(entries[place].label for place in used if entries[place].side in ("", TRAIN))
    classes = sorted(label for label, count in counts.items() if given or count > 1)
    validated = {entries[place].label for place in used if entries[place].side == VALIDATION}

    of_row = [entries[place].label for place in used if entries[place].side != TEST]
    kept = [row for row, label in enumerate(of_row) if label in classes]
    for index, row in enumerate(kept):
        if index != row:
            images[index] = images[row]
    for place in used:
        entry = entries[place]
        if entry.label not in classes:
            why = ONE_IMAGE if counts[entry.label] and entry.side != TEST else UNTRAINED
            entries[place] = entry._replace(reason=why)

    if len(classes) < 2:
        found = f"has usable images of one class only ({classes[0]})" if classes else "holds no image that can be used"
        raise UserError(
            f"data.path: {config.path} {found}; {_dropped(entries)}; "
            "name a folder with two or more folders of images in it, one a class"
        )
    if given and not validated:
        of_side = [entry for entry in entries if entry.side == VALIDATION]
        raise UserError(f"data.path: {config.path} has no usable image to validate on; there {_dropped(of_side)}")
    require_training_classes(validated, classes, config.path)
    without = sorted({entry.label for entry in entries} - {*classes, ""})
    if without:
        log.warning("no class, for want of images that can be used: %s", ", ".join(without))
    number = {label: index for index, label in enumerate(classes)}
    labels = np.array([number[of_row[row]] for row in kept], np.int64)
    return RawDataset(images[: len(kept)], labels, tuple(classes), entries)


def _dropped(entries: Sequence[ManifestEntry]) -> str:
    dropped = Counter(entry.reason.partition(":")[0] for entry in entries if entry.reason)
    why = ", ".join(f"{count:,} {kind}" for kind, count in dropped.most_common())
    return f"of {len(entries):,} files were dropped: {why or 'none'}"
