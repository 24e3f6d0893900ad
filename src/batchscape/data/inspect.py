"""Inspection of a source for `check`, without decoding or loading its images."""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from batchscape.config.data.arrays import ArraysConfig
from batchscape.config.data.images import CifarConfig, DigitsConfig, IdxConfig, ImageFolderConfig, SyntheticConfig
from batchscape.config.data.section import TaskName, held_out_count
from batchscape.config.data.sources import DataConfig
from batchscape.config.data.tables import DiamondsConfig, TableConfig
from batchscape.config.data.text import PythonDocsConfig, TextConfig
from batchscape.data import arrays, cats_vs_dogs, digits, synthetic
from batchscape.data.archive import open_archive
from batchscape.data.image_folder import assign_classes, reject_folder_split_keys
from batchscape.data.inspect_files import inspect_files
from batchscape.data.layout import may_be_image
from batchscape.data.moments import Moments
from batchscape.data.prepared import TARGETS, Rows, add_targets
from batchscape.data.source import join_names, require_task
from batchscape.data.spec import SIDES, TEST, TRAIN, VALIDATION, DataSpec
from batchscape.errors import UserError

# Numeric targets that an inspection returns, as examples.
MAX_TARGETS = 1000


class Inspection(NamedTuple):
    """What is known about a source before it is prepared; None is not known."""

    lines: list[str]
    spec: DataSpec | None = None
    """What an example is."""
    counts: tuple[int, int] | None = None
    """Number of training and of validation examples if none is dropped."""
    targets: np.ndarray | None = None
    """Numeric targets of some examples, as they are stored, (n, …) float32."""


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
        return Inspection(*inspect_files(config, task))
    if isinstance(config, ImageFolderConfig):
        if config.path:
            return _inspect_folder(config)
        line = f"data: {config.source}: is downloaded when the study runs, if it is not in downloads/"
        return Inspection([line], _images(_target_shape(config), cats_vs_dogs.CLASSES))
    if isinstance(config, ArraysConfig):
        return _inspect_arrays(config, task)
    if isinstance(config, DigitsConfig):
        spec = _images(digits.IMAGE_SHAPE, digits.CLASSES[config.task])
        return _inspect_generated(config, digits.NUM_IMAGES, spec)
    if isinstance(config, SyntheticConfig):
        spec = _images((*config.image_size, config.channels), synthetic.class_names(config))
        return _inspect_generated(config, config.images, spec)
    return Inspection([f"data: {config.source}: is called when the study runs"])


def _images(shape: tuple[int, int, int], classes: Sequence[str]) -> DataSpec:
    """Return the spec of images of a shape, (height, width, channels), in classes."""
    height, width, channels = shape
    return DataSpec("images", (channels, height, width), "class", tuple(classes))


def _inspect_generated(config: DigitsConfig | SyntheticConfig, count: int, spec: DataSpec) -> Inspection:
    return Inspection([f"data: {config.source}: {count:,} images"], spec, _split_counts(config, count))


def _inspect_arrays(config: ArraysConfig, task: TaskName) -> Inspection:
    from batchscape.data.prepare import describe_targets

    line, spec, count, numbers, divides_itself = arrays.inspect_arrays(config, task)
    lines, targets = [line], None
    if numbers is not None:
        targets = np.asarray(numbers[:MAX_TARGETS], np.float32)
        moments = Moments(math.prod(spec.target_shape))
        for chunk in Rows({TARGETS: numbers}, np.arange(count)):
            add_targets(moments, {TARGETS: chunk[TARGETS].astype(np.float32)})
        lines.append(f"data: {describe_targets(moments, spec, config, 'of all examples')}")
    counts = None if divides_itself else _split_counts(config, count)
    # The size of a vocabulary is not known.
    return Inspection(lines, None if spec.inputs == "tokens" else spec, counts, targets)


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
    return Inspection(lines, _images(_target_shape(config), sorted(counts)), split_counts)
