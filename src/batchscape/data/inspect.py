"""Inspection of a source for `check`, without decoding or loading its images."""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

from batchscape.config.data import (
    ArraysConfig,
    CifarConfig,
    DataConfig,
    DiamondsConfig,
    DigitsConfig,
    IdxConfig,
    ImageFolderConfig,
    PythonDocsConfig,
    SyntheticConfig,
    TableConfig,
    TaskName,
    TextConfig,
    held_out_count,
)
from batchscape.data import arrays, digits
from batchscape.data.archive import open_archive
from batchscape.data.image_folder import assign_classes, reject_folder_split_keys
from batchscape.data.inspect_files import inspect_files
from batchscape.data.layout import may_be_image
from batchscape.data.source import join_names, require_task
from batchscape.data.spec import SIDES, TEST, TRAIN, VALIDATION, DataSpec
from batchscape.errors import UserError


class Inspection(NamedTuple):
    """What is known about a source before it is prepared; None is not known."""

    lines: list[str]
    shape: tuple[int, int, int] | None = None
    """Height, width and channels of an image."""
    classes: int | None = None
    counts: tuple[int, int] | None = None
    """Number of training and of validation images if no file is dropped."""
    spec: DataSpec | None = None
    """What an example is."""


def inspect_source(config: DataConfig, task: TaskName | None = None) -> Inspection:
    """Return what names, headers and sizes show of a source, and of small tables and texts their content.

    Args:
        config: Section `data` of the study file.
        task: Name of the task; None: the one that the source has by default.

    Raises:
        UserError: They show that `prepare` would fail.
    """
    task = task or config.tasks[0]
    require_task(config, task)
    if isinstance(config, TableConfig | DiamondsConfig | TextConfig | PythonDocsConfig | IdxConfig | CifarConfig):
        lines, spec, counts = inspect_files(config, task)
        if spec is None or spec.inputs != "images":
            return Inspection(lines, counts=counts, spec=spec)
        channels, height, width = spec.shape
        return Inspection(lines, (height, width, channels), len(spec.classes), counts, spec)
    if isinstance(config, ImageFolderConfig):
        if config.path:
            return _inspect_folder(config)
        line = f"data: {config.source}: is downloaded when the study runs, if it is not in downloads/"
        return Inspection([line], _target_shape(config), 2)
    if isinstance(config, ArraysConfig):
        line, spec, count = arrays.inspect_arrays(config, task)
        counts = _split_counts(config, count)
        if spec.inputs != "images":
            return Inspection([line], counts=counts, spec=spec if spec.inputs == "numbers" else None)
        channels, height, width = spec.shape
        return Inspection([line], (height, width, channels), len(spec.classes) or None, counts, spec)
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
    validation, test = (held_out_count(count, part) for part in (config.validation_fraction, config.test_fraction))
    return count - validation - test, validation


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
