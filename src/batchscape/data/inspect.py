"""What can be seen of a source without decoding or loading it: what `check` says of the data."""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

from batchscape.config.data import (
    ArraysConfig,
    DataConfig,
    DigitsConfig,
    ImageFolderConfig,
    SyntheticConfig,
    validation_count,
)
from batchscape.data import arrays
from batchscape.data.archive import open_archive
from batchscape.data.image_folder import assign_classes, reject_split_keys
from batchscape.data.layout import may_be_image
from batchscape.data.source import join_names, require_two_classes
from batchscape.data.split import SIDES, TEST, TRAIN, VALIDATION
from batchscape.errors import UserError


class Inspection(NamedTuple):
    """What is known of a source before it is prepared; None is not known."""

    lines: list[str]
    shape: tuple[int, int, int] | None = None
    """Height, width and channels of an image."""
    classes: int | None = None
    counts: tuple[int, int] | None = None
    """How many images train and how many validate, if none has to be dropped."""


def inspect_source(config: DataConfig) -> Inspection:
    """Return what names, headers and sizes say of a source.

    Raises UserError where they show already that `prepare` would.
    """
    if isinstance(config, ImageFolderConfig):
        if config.path:
            return _folder(config)
        line = f"data: {config.source}: is downloaded when the study runs, if it is not in downloads/"
        return Inspection([line], _scaled_shape(config), 2)
    if isinstance(config, ArraysConfig):
        header, classes = arrays.inspect_arrays(config)
        require_two_classes(classes)
        count, height, width = header.shape[:3]
        channels = header.shape[3] if len(header.shape) == 4 else 1
        size = f"{count:,} images of {height} × {width} pixels, channels: {channels}, {header.dtype}"
        line = f"data: {config.path}: {size}; {len(classes):,} classes: {join_names(classes)}"
        return Inspection([line], (height, width, channels), len(classes), _drawn(config, count))
    if isinstance(config, DigitsConfig | SyntheticConfig):
        count = config.known_size.images
        made = isinstance(config, SyntheticConfig)
        shape = (*config.image_size, config.channels) if made else (8, 8, 1)
        classes = config.classes if made else {"parity": 2, "digit": 10}[config.task]
        return Inspection([f"data: {config.source}: {count:,} images"], shape, classes, _drawn(config, count))
    return Inspection([f"data: {config.source}: is called when the study runs"])


def _drawn(config: DataConfig, count: int) -> tuple[int, int]:
    validation = validation_count(count, config.validation_fraction)
    return count - validation, validation


def _scaled_shape(config: ImageFolderConfig) -> tuple[int, int, int]:
    return (*config.image_size, 1 if config.color == "grayscale" else 3)


def _folder(config: ImageFolderConfig) -> Inspection:
    with open_archive(Path(config.path)) as files:
        listed, layout = assign_classes(files, config.path)
    reject_split_keys(layout, config)
    images = [each for each in listed if not each.reason and may_be_image(each.file.name)]
    counts = Counter(each.label for each in images)
    if len(counts) < 2:
        found = f"images of one class only ({next(iter(counts))})" if counts else "no image in a class folder"
        raise UserError(
            f"data.path: {config.path} has {found}; name a folder with two or more folders of images in it, one a class"
        )
    by_side = Counter(each.side for each in images)
    sides = "".join(f", {side}: {by_side[side]:,}" for side in SIDES if by_side[side])
    classes = join_names([f"{label} ({count:,})" for label, count in counts.items()])
    total = f"data: {config.path}: {counts.total():,} of {len(listed):,} files are images of {len(counts):,} classes"
    lines = [f"{total}{sides}: {classes}", *(f"data: {note}" for note in layout.notes)]
    given = by_side[TRAIN], by_side[VALIDATION]
    sizes = given if by_side[VALIDATION] else _drawn(config, counts.total() - by_side[TEST])
    return Inspection(lines, _scaled_shape(config), len(counts), sizes)
