"""Inspection of tables, text and sets of images for `check`: small files are read as `prepare` does."""

import math
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

from batchscape.config.data.images import CifarConfig, IdxConfig
from batchscape.config.data.section import DataSection, TaskName, held_out_count
from batchscape.config.data.tables import DiamondsConfig, TableConfig
from batchscape.config.data.text import PythonDocsConfig, TextConfig
from batchscape.data import cifar, diamonds, idx, python_docs, table, text
from batchscape.data.moments import Moments
from batchscape.data.prepared import TARGETS, WEIGHTS, Rows, add_targets
from batchscape.data.source import LoadOptions, RawDataset, join_names, require_two_classes
from batchscape.data.spec import SIDES, TEST, TRAIN, DataSpec
from batchscape.errors import UserError

# Bytes of the files that are read.
MAX_BYTES = 2**26

FileConfig = TableConfig | DiamondsConfig | TextConfig | PythonDocsConfig | IdxConfig | CifarConfig


class FileInspection(NamedTuple):
    """What files show."""

    lines: list[str]
    spec: DataSpec | None = None
    """What an example is; None if it is not known before all of the files are read."""
    counts: tuple[int, int] | None = None
    """Number of training and of validation examples."""
    targets: np.ndarray | None = None
    """Numeric targets of some training examples, as they are stored, (n, …) float32."""


def inspect_files(config: FileConfig, task: TaskName) -> FileInspection:
    """Return what files show. Raises UserError if they show that `prepare` would fail."""
    if isinstance(config, IdxConfig):
        return _inspect_idx(config)
    if isinstance(config, CifarConfig):
        return _inspect_cifar(config)
    size = _num_bytes(config)
    if size > MAX_BYTES:
        return FileInspection([f"data: {_name(config)}: {size / 1e6:,.0f} MB, of which only the headers are read here"])
    module = {"table": table, "diamonds": diamonds, "text": text, "python_docs": python_docs}[config.source]
    with TemporaryDirectory(prefix="batchscape-check-") as folder:
        source: RawDataset = module.load(config, LoadOptions(1, task, Path(folder)))
        return _inspect_rows(source, config)


def _inspect_rows(source: RawDataset, config: FileConfig) -> FileInspection:
    from batchscape.data.manifest import describe_dropped
    from batchscape.data.prepare import describe_targets, split_source, to_stored

    sides, notes = split_source(source, config)
    rows = np.flatnonzero(sides == SIDES.index(TRAIN))
    spec, targets = source.spec, None
    lines = [f"data: {_name(config)}: {len(source):,} {config.example_noun}", *source.notes]
    if source.fit:
        fitted = source.fit(Rows(source.arrays, rows))
        spec = fitted.spec
        lines += fitted.notes
        if spec.targets == "numbers":
            moments = Moments(math.prod(spec.target_shape))
            train = Rows(source.arrays, rows)
            for part, chunk in zip(train.parts(), train, strict=True):
                transformed = fitted.transform(chunk)
                used = {name: transformed[name] for name in (TARGETS, WEIGHTS) if name in transformed}
                stored = to_stored(used, spec, source, part)
                add_targets(moments, stored)
                targets = stored[TARGETS] if targets is None else targets
            notes = [*notes, describe_targets(moments, spec, config)]
    if spec.targets == "class":
        require_two_classes(spec.classes)
        lines[0] += f" of {len(spec.classes):,} classes: {join_names(spec.classes)}"
    lines[0] += describe_dropped((entry.reason, entry.examples) for entry in source.entries)
    counts = [int(np.count_nonzero(sides == index)) for index in range(len(SIDES))]
    given = "; ".join(f"{side}: {count:,}" for side, count in zip(SIDES, counts, strict=True) if count)
    return FileInspection(
        [lines[0], *(f"data: {line}" for line in [*lines[1:], *notes, given])], spec, (counts[0], counts[1]), targets
    )


def _name(config: DataSection) -> str:
    return next(iter(config.files.values()), config.source)


def _num_bytes(config: DataSection) -> int:
    if isinstance(config, TextConfig):
        return sum(path.stat().st_size for path, _, _ in text.list_texts(config) if path.is_file())
    if isinstance(config, TableConfig):
        opened = [file for file, _ in table.open_tables(config)]
        table.select_columns(config, opened)
        return sum(Path(file.path).stat().st_size for file in opened)
    return 0


def _inspect_idx(config: IdxConfig) -> FileInspection:
    seen = idx.inspect_idx(config)
    height, width = seen.shape
    count = sum(count for count, part in zip(seen.counts, seen.parts, strict=True) if part.side != TEST)
    return _inspect_images(config, (1, height, width), seen.classes, count, sum(seen.counts) - count)


def _inspect_cifar(config: CifarConfig) -> FileInspection:
    classes, num_train, num_test = cifar.inspect_cifar(config)
    return _inspect_images(config, (3, cifar.SIZE, cifar.SIZE), classes, num_train, num_test)


def _inspect_images(
    config: IdxConfig | CifarConfig, shape: tuple[int, int, int], classes: tuple[str, ...], count: int, num_test: int
) -> FileInspection:
    require_two_classes(classes)
    num_validation = held_out_count(count, config.validation_fraction)
    num_drawn = 0 if num_test else held_out_count(count, config.test_fraction)
    if num_test and "test_fraction" in config.split_keys:
        raise UserError(
            f"data.test_fraction: cannot be set, because the files of {config.path} give the test side; remove the key"
        )
    tested = f", and {num_test:,} for testing" if num_test else ""
    line = (
        f"data: {config.path}: {count:,} images of {shape[1]} × {shape[2]} pixels, channels: {shape[0]}{tested}; "
        f"{len(classes):,} classes: {join_names(classes)}"
    )
    return FileInspection(
        [line], DataSpec("images", shape, "class", classes), (count - num_validation - num_drawn, num_validation)
    )
