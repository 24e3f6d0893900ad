"""Image files, one folder per class."""

import hashlib
import logging
import shutil
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image

from batchscape.config.data.images import ImageFolderConfig
from batchscape.data.archive import SourceFile, UnusableFile, open_archive
from batchscape.data.decode import WHITE_16_BIT, convert_image, decode_image, open_image
from batchscape.data.layout import OUTSIDE, Layout, infer_layout, require_training_classes
from batchscape.data.listing import is_clutter
from batchscape.data.prepared import INPUTS, TARGETS
from batchscape.data.scratch import Scratch
from batchscape.data.source import (
    ANOTHER_CLASS,
    ANOTHER_SIDE,
    DEFAULT_OPTIONS,
    LoadOptions,
    ManifestEntry,
    RawDataset,
    join_names,
    reject_split_keys,
)
from batchscape.data.spec import SIDES, TEST, TRAIN, VALIDATION, DataSpec
from batchscape.errors import UserError
from batchscape.runtime.read_progress import Progress

# Files to read ahead per thread: enough to keep all threads busy while one slow image holds up the order.
PREFETCH_PER_THREAD = 4

# A JFIF file starts with the start-of-image marker, the APP0 marker, its length, and the name `JFIF`.
JFIF_HEADER_SIZE = 10

CLUTTER = "system file: hidden, or created by a system or a camera"
DUPLICATE = "duplicate"
SINGLE_IMAGE = "class of one image: it cannot be on both sides of the split"
UNKNOWN_CLASS = "unknown class: it has no training images"

Item = TypeVar("Item")
Result = TypeVar("Result")

log = logging.getLogger(__name__)


class ListedFile(NamedTuple):
    """A file, with what its path says about it."""

    file: SourceFile

    label: str
    """Name of its class; empty if it is in no class folder."""

    reason: str = ""
    """Why it is dropped whatever it contains; empty if it is not."""

    side: str = ""
    """Side of the split that its folders give, one of SIDES; empty if they give none."""

    is_repeat: bool = False
    """Whether it is in a folder that repeats the set."""


class FileContents(NamedTuple):
    """What a file contains."""

    sha256: str
    """Hash of its bytes; empty if it cannot be read."""

    pixels: np.ndarray | None
    """The image as `decode_image` returns it; None if the file is dropped."""

    max_value: int
    """As in DecodedImage."""

    is_first_of_several: bool
    """As in DecodedImage."""

    reason: str
    """Why it is dropped; empty if it is used."""


def load(config: ImageFolderConfig, options: LoadOptions = DEFAULT_OPTIONS) -> RawDataset:
    """Return the images below a folder or in a zip file: classes in order of their names, files in order within each.

    They are decoded to the disk. Raises UserError if the path is neither a folder nor a zip file, or fewer than two
    classes have usable images.
    """
    with open_archive(Path(config.path)) as files:
        listed, layout = assign_classes(files, config.path)
        reject_folder_split_keys(layout, config)
        dataset = read_images(listed, config, options.threads, options.folder)
    return replace(dataset, notes=(*layout.notes, *dataset.notes), split_by=describe_side_folders(layout, config))


def assign_classes(files: Sequence[SourceFile], source: str) -> tuple[list[ListedFile], Layout]:
    """Return files with the classes and sides that their folders give, and the layout of the folders.

    The order stays, except that training files come before validation files and these before test files, and that
    files in a folder that repeats the set come last on their side. Raises UserError, naming `source`, as
    `infer_layout` does.
    """
    layout = infer_layout([file.name for file in files if not is_clutter(file.name)], source)

    def list_file(file: SourceFile) -> ListedFile:
        if is_clutter(file.name):
            return ListedFile(file, "", CLUTTER)
        place = layout.places[file.name]
        return ListedFile(file, place.label, "" if place.label else OUTSIDE, place.side, place.is_repeat)

    def sort_key(listed: ListedFile) -> tuple[int, bool]:
        return SIDES.index(listed.side) if listed.side else len(SIDES), listed.is_repeat

    return sorted(map(list_file, files), key=sort_key), layout


def reject_folder_split_keys(layout: Layout, config: ImageFolderConfig) -> None:
    """Raise UserError if the folders give a part of the split and the study file sets keys for it too."""
    reject_split_keys(set(layout.side_folders), config, describe_side_folders(layout, config))


def describe_side_folders(layout: Layout, config: ImageFolderConfig) -> str:
    """Return what gives the split, for errors."""
    sides = join_names(folder for folders in layout.side_folders.values() for folder in folders)
    return f"the folders of {config.path} ({sides})"


def read_images(
    files: Sequence[ListedFile], config: ImageFolderConfig, threads: int, folder: Path | None = None
) -> RawDataset:
    """Read, check and decode each file once, in `threads` threads; classes are in order of their names.

    16-bit files are decoded twice if the white level has to be determined. Images go into a file without a name in
    `folder`; only a few per thread are in memory. Raises UserError if fewer than two classes have usable images.
    """
    images = Scratch((*config.image_size, 3 if config.color == "rgb" else 1), np.uint8, folder)
    _require_space(images, sum(not listed.reason for listed in files))
    entries: list[ManifestEntry] = []
    first_with_hash: dict[str, ListedFile] = {}
    files_16_bit: dict[int, ListedFile] = {}  # by the index of their image
    shared_with_other_class: Counter[str] = Counter()
    num_repeats = num_copied_repeats = num_multi_image = max_value = 0
    log.info("%s: reading %s files, threads: %d", config.path, f"{len(files):,}", threads)
    progress = Progress("files", len(files))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # problems of a file are listed in the manifest
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        contents = map_in_order(lambda listed: _read_file(listed, config), files, threads)
        for listed, content in zip(files, contents, strict=True):
            reason = content.reason
            if not reason:
                first = first_with_hash.setdefault(content.sha256, listed)
                shared_with_other_class[listed.label] += first.label != listed.label
                num_repeats += listed.is_repeat
                num_copied_repeats += listed.is_repeat and first is not listed
                max_value = max(max_value, content.max_value)
                num_multi_image += content.is_first_of_several
                reason = _duplicate_reason(first, listed) if config.drop_duplicates else ""
            if not reason:
                assert content.pixels is not None
                if content.max_value:
                    files_16_bit[len(images)] = listed
                images.append(content.pixels[np.newaxis])
            entries.append(ManifestEntry(listed.file.name, content.sha256, listed.label, reason, listed.side))
            progress.update(1)
        white = config.white_level or _white_level(max_value)
        if white != (config.white_level or WHITE_16_BIT):
            pixels = map_in_order(lambda listed: _decode_again(listed, config, white), files_16_bit.values(), threads)
            for index, rescaled in zip(files_16_bit, pixels, strict=True):
                images.replace(index, rescaled)
    progress.close()
    if 2 * num_copied_repeats < num_repeats:
        raise UserError(
            f"data.path: {config.path} has folders named like those around them, but only {num_copied_repeats:,} of "
            f"the {num_repeats:,} images in them are copies; move these folders away, or rename them"
        )
    _reject_repeated_classes(entries, shared_with_other_class, config)
    dataset = _assemble(images, entries, config)
    notes = []
    if num_multi_image:
        notes.append(f"pages: {num_multi_image:,} files contain several images, of which only the first is used")
    if files_16_bit:
        why = "set by data.white_level" if config.white_level else f"their largest value is {max_value:,}"
        note = f"levels: {white:,} is white in {len(files_16_bit):,} files of 16 bits ({why})"
        notes.append(note + ("" if config.white_level else "; set data.white_level to change it"))
    return replace(dataset, notes=tuple(notes))


def _white_level(max_value: int) -> int:
    """Return the largest value of the smallest bit depth, from 8 to 16, that can hold `max_value`."""
    return (1 << min(max(max_value.bit_length(), 8), 16)) - 1


def map_in_order(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """Yield `function(item)` for each item, in order, computed in threads a few items ahead of the consumer."""
    with ThreadPoolExecutor(threads) as pool:
        pending: deque[Future[Result]] = deque()
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > PREFETCH_PER_THREAD * threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _require_space(images: Scratch, count: int) -> None:
    """Raise UserError if the disk cannot hold so many images."""
    needed, free = count * images.row_bytes, shutil.disk_usage(images.folder).free
    if needed > free:
        raise UserError(
            f"data.image_size: not enough space on the disk for {count:,} images of {images.shape[0]} × "
            f"{images.shape[1]} pixels: {needed / 1e9:,.0f} GB needed, {free / 1e9:,.0f} GB free; make them smaller"
        )


def _read_file(listed: ListedFile, config: ImageFolderConfig) -> FileContents:
    sha256, pixels, max_value, is_first_of_several, reason = "", None, 0, False, listed.reason
    try:
        content = listed.file.read()
        sha256 = hashlib.sha256(content).hexdigest()
        if not reason:
            if not content:
                raise UnusableFile("empty file: 0 bytes")
            if config.jfif_only and b"JFIF" not in content[:JFIF_HEADER_SIZE]:
                raise UnusableFile("not JFIF: no `JFIF` in the first ten bytes")
            image = open_image(content)
            max_value, is_first_of_several = image.max_value, image.is_first_of_several
            white = config.white_level or WHITE_16_BIT
            pixels = convert_image(image, config.image_size, config.fit, config.color, white)
    except UnusableFile as error:
        reason = str(error)
    return FileContents(sha256, pixels, max_value, is_first_of_several, reason)


def _decode_again(listed: ListedFile, config: ImageFolderConfig, white: int) -> np.ndarray:
    try:
        return decode_image(listed.file.read(), config.image_size, config.fit, config.color, white)
    except UnusableFile as error:
        raise UserError(f"data.path: {config.path}: {listed.file.name} changed while it was read ({error}); run again")


def _duplicate_reason(first: ListedFile, listed: ListedFile) -> str:
    if first is listed:
        return ""
    differences = [ANOTHER_CLASS] * (first.label != listed.label) + [ANOTHER_SIDE] * (first.side != listed.side)
    return f"{DUPLICATE}: of {first.file.name}" + (f", which is {' and '.join(differences)}" if differences else "")


def _reject_repeated_classes(
    entries: Sequence[ManifestEntry], shared_with_other_class: Counter[str], config: ImageFolderConfig
) -> None:
    """Raise UserError if at least half of the images of a class, and more than one, are in other classes too."""
    num_read = Counter(entry.label for entry in entries if not entry.reason or entry.reason.startswith(DUPLICATE))
    for label, count in sorted(shared_with_other_class.items()):
        if count > 1 and 2 * count >= num_read[label]:
            originals = {
                entry.reason.partition(": of ")[2].partition(",")[0]
                for entry in entries
                if entry.label == label and ANOTHER_CLASS in entry.reason
            }
            example = f", such as {min(originals)}" if originals else ""
            raise UserError(
                f"data.path: {config.path} has {count:,} of the {num_read[label]:,} images of {label} in other classes "
                f"too{example}; remove the folder that repeats the images of others"
            )


def _assemble(images: Scratch, entries: list[ManifestEntry], config: ImageFolderConfig) -> RawDataset:
    """Return the dataset of images, (n, height, width, channels), and entries, without classes that cannot be used.

    Images and entries are changed in place.
    """
    has_validation = any(entry.side == VALIDATION for entry in entries)
    used = [index for index, entry in enumerate(entries) if not entry.reason]
    counts = Counter(entries[index].label for index in used if entries[index].side in ("", TRAIN))
    classes = sorted(label for label, count in counts.items() if has_validation or count > 1)
    validation_classes = {entries[index].label for index in used if entries[index].side == VALIDATION}

    used_rows = [row for row, index in enumerate(used) if entries[index].label in classes]
    used_entries = [entries[used[row]] for row in used_rows]
    images.keep(used_rows)
    for index in used:
        entry = entries[index]
        if entry.label not in classes:
            reason = SINGLE_IMAGE if counts[entry.label] and entry.side != TEST else UNKNOWN_CLASS
            entries[index] = entry._replace(reason=reason)

    if len(classes) < 2:
        problem = f"has usable images of one class only ({classes[0]})" if classes else "has no usable images"
        raise UserError(
            f"data.path: {config.path} {problem}; {_summarize_dropped(entries)}; "
            "name a folder that contains two or more folders of images, one per class"
        )
    if has_validation and not validation_classes:
        validation_entries = [entry for entry in entries if entry.side == VALIDATION]
        raise UserError(
            f"data.path: {config.path} has no usable validation images; there, {_summarize_dropped(validation_entries)}"
        )
    require_training_classes(validation_classes, classes, config.path)
    without_images = sorted({entry.label for entry in entries} - {*classes, ""})
    if without_images:
        log.warning("classes left out because they have no usable images: %s", ", ".join(without_images))
    class_index = {label: index for index, label in enumerate(classes)}
    height, width, channels = images.shape
    return RawDataset(
        DataSpec("images", (channels, height, width), "class", tuple(classes)),
        {INPUTS: images.read(), TARGETS: np.array([class_index[entry.label] for entry in used_entries], np.int64)},
        entries,
        sides=np.array([SIDES.index(entry.side) if entry.side else -1 for entry in used_entries], np.int8),
        key="data.path",
    )


def _summarize_dropped(entries: Sequence[ManifestEntry]) -> str:
    dropped = Counter(entry.reason.partition(":")[0] for entry in entries if entry.reason)
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in dropped.most_common())
    return f"of {len(entries):,} files were dropped: {kinds or 'none'}"
