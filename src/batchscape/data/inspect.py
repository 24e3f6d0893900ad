"""Inspection of a source for `check`, without decoding or loading its images."""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

from batchscape.config.data import (
    ArraysConfig,
    DataConfig,
    DigitsConfig,
    ImageFolderConfig,
    SyntheticConfig,
    held_out_count,
)
from batchscape.data import arrays, digits
from batchscape.data.archive import open_archive
from batchscape.data.image_folder import assign_classes, reject_folder_split_keys
from batchscape.data.layout import may_be_image
from batchscape.data.source import join_names, require_two_classes
from batchscape.data.split import SIDES, TEST, TRAIN, VALIDATION
from batchscape.errors import UserError


class Inspection(NamedTuple):
    """What is known about a source before it is prepared; None is not known."""

    lines: list[str]
    shape: tuple[int, int, int] | None = None
    """Height, width and channels of an image."""
    classes: int | None = None
    counts: tuple[int, int] | None = None
    """Number of training and of validation images if no file is dropped."""


def inspect_source(config: DataConfig) -> Inspection:
    """Return what names, headers and sizes show of a source.

    Raises UserError if they show that `prepare` would fail.
    """
    if isinstance(config, ImageFolderConfig):
        if config.path:
            return _inspect_folder(config)
        line = f"data: {config.source}: is downloaded when the study runs, if it is not in downloads/"
        return Inspection([line], _target_shape(config), 2)
    if isinstance(config, ArraysConfig):
        header, classes = arrays.inspect_arrays(config)
        require_two_classes(classes)
        count, height, width = header.shape[:3]
        channels = header.shape[3] if len(header.shape) == 4 else 1
        size = f"{count:,} images of {height} × {width} pixels, channels: {channels}, {header.dtype}"
        line = f"data: {config.path}: {size}; {len(classes):,} classes: {join_names(classes)}"
        return Inspection([line], (height, width, channels), len(classes), _split_counts(config, count))
    if isinstance(config, DigitsConfig):
        return _inspect_generated(
            config, digits.NUM_IMAGES, digits.IMAGE_SHAPE, {"parity": 2, "digit": 10}[config.task]
        )
    if isinstance(config, SyntheticConfig):
        return _inspect_generated(config, config.images, (*config.image_size, config.channels), config.classes)
    return Inspection([f"data: {config.source}: is called when the study runs"])


def _inspect_generated(
    config: DigitsConfig | SyntheticConfig, count: int, shape: tuple[int, int, int], classes: int
) -> Inspection:
    lines = [f"data: {config.source}: {count:,} images"]
    return Inspection(lines, shape, classes, _split_counts(config, count))


def _split_counts(config: DataConfig, count: int) -> tuple[int, int]:
    validation = held_out_count(count, config.validation_fraction)
    return count - validation, validation


def _target_shape(config: ImageFolderConfig) -> tuple[int, int, int]:
    return (*config.image_size, 1 if config.color == "grayscale" else 3)


def _inspect_folder(config: ImageFolderConfig) -> Inspection:
    with open_archive(Path(config.path)) as files:
        listed, layout = assign_classes(files, config.path)
    reject_folder_split_keys(layout, config)
    images = [file for file in listed if not file.reason and may_be_image(file.file.name)]
    counts = Counter(image.label for image in images)
    if len(counts) < 2:
        problem = f"images of one class only ({next(iter(counts))})" if counts else "no images in class folders"
        raise UserError(
            f"data.path: {config.path} has {problem}; name a folder that contains two or more folders of images, one "
            "per class"
        )
    side_counts = Counter(image.side for image in images)
    sides = "".join(f", {side}: {side_counts[side]:,}" for side in SIDES if side_counts[side])
    classes = join_names([f"{label} ({count:,})" for label, count in counts.items()])
    total = f"data: {config.path}: {counts.total():,} of {len(listed):,} files are images of {len(counts):,} classes"
    lines = [f"{total}{sides}: {classes}", *(f"data: {note}" for note in layout.notes)]
    if side_counts[VALIDATION]:
        split_counts = side_counts[TRAIN], side_counts[VALIDATION]
    else:
        split_counts = _split_counts(config, counts.total() - side_counts[TEST])
    return Inspection(lines, _target_shape(config), len(counts), split_counts)
