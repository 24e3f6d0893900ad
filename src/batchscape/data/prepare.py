"""Preparation of a configured source as the data of a study."""

import math
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import pandas as pd

from batchscape.config.data.section import TaskName
from batchscape.config.data.sources import DataConfig, source_module
from batchscape.config.data.tables import TableSection
from batchscape.data.manifest import make_manifest, summarize_manifest
from batchscape.data.moments import Moments
from batchscape.data.prepared import (
    CATEGORIES,
    INPUTS,
    TARGETS,
    WEIGHTS,
    Chunk,
    PreparedData,
    Rows,
    add_targets,
    read_prepared,
    token_dtype,
    write_chunks,
)
from batchscape.data.source import Fitted, LoadOptions, RawDataset, reject_split_keys, require_task, require_two_classes
from batchscape.data.spec import SIDES, TEST, TRAIN, VALIDATION, DataSpec
from batchscape.data.split import quantile_strata, split
from batchscape.errors import UserError

# Values to count at once; NumPy converts them to integers of eight bytes.
COUNT_CHUNK = 2**17

# Images are reported as dark if at most this share of their values is at or above the middle level; a few pixels of a
# camera are always bright.
MIDDLE_LEVEL = 128
BRIGHT_SHARE = 0.001
# Larger inputs are in another unit than 0 to 1, or than standard deviations.
FAR = 20


class PrepareResult(NamedTuple):
    """The prepared data of a study, and a record of how it was made."""

    data: PreparedData
    """All sides of the split, mapped."""

    manifest: pd.DataFrame
    """What the source contains, as `make_manifest` returns it."""

    summary: list[str]
    """How the source was interpreted and what was dropped, one line each, for the log."""


def prepare(
    config: DataConfig, threads: int = 1, task: TaskName = "classification", path: Path | None = None
) -> PrepareResult:
    """Load the configured source, split it, as the source itself or otherwise the config says, and write the sides.

    The memory that this needs does not depend on the size of the data, except for some bytes per example: sources write
    what does not fit to the disk beside `path`, and the file is written chunk by chunk.

    Args:
        config: Section `data` of the study file.
        threads: Number of threads that read and decode files.
        task: Name of the task, which decides what targets may be.
        path: The file to write. None: a temporary one that is deleted, and stays mapped as long as the result is used.

    Returns:
        The prepared data, the manifest, and lines for the log.

    Raises:
        UserError: The source has no usable examples, or the split leaves a side empty.
    """
    if path is None:
        with TemporaryDirectory(prefix="batchscape-") as folder:
            return prepare(config, threads, task, Path(folder) / "data.safetensors")
    require_task(config, task)
    source = import_module(source_module(config.source)).load(config, LoadOptions(threads, task, path.parent))
    if source.spec.targets == "class" and source.fit is None:
        require_two_classes(source.spec.classes)
    sides, split_notes = split_source(source, config)
    rows = {side: np.flatnonzero(sides == index) for index, side in enumerate(SIDES)}
    fitted = source.fit(Rows(source.arrays, rows[TRAIN])) if source.fit else Fitted(source.spec, dict)
    if fitted.spec.targets == "class":
        require_two_classes(fitted.spec.classes)
    labels = np.full(len(source), -1, np.int32)
    values = _Values(fitted.spec, config, is_fitted=source.fit is not None)

    def chunks(side: str) -> Iterator[Chunk]:
        raw = Rows(source.arrays, rows[side])
        for part, arrays in zip(raw.parts(), raw, strict=True):
            chunk = to_stored(fitted.transform(arrays), fitted.spec, source, part)
            if fitted.spec.targets == "class":
                labels[part] = chunk[TARGETS]
            values.add(chunk, side)
            yield chunk

    counts = {side: len(rows[side]) for side in SIDES}
    write_chunks(path, fitted.spec, counts, {side: chunks(side) for side in SIDES})
    manifest = make_manifest(source.entries, sides, labels, fitted.spec.classes)
    lines = summarize_manifest(manifest, split_is_given=_gives(source, VALIDATION))
    notes = [*source.notes, *fitted.notes, *split_notes, *values.lines()]
    return PrepareResult(read_prepared(path), manifest, [*lines, *notes])


def split_source(source: RawDataset, config: DataConfig) -> tuple[np.ndarray, list[str]]:
    """Divide the rows of a source into sides.

    Rows whose side the source gives stay there. If it gives no validation side, this is drawn from the training rows,
    or from all rows if it gives no sides, and likewise the test side if the study file asks for one.

    Returns:
        The side of each row as its index in SIDES, and lines for the log.

    Raises:
        UserError: A side would be empty, a group is on two sides, or the study file sets what the source gives.
    """
    if source.is_split:
        assert source.sides is not None
        return source.sides, []
    reject_split_keys({side for side in SIDES if _gives(source, side)}, config, source.split_by)
    sides = np.full(len(source), -1, np.int8) if source.sides is None else source.sides.astype(np.int8)
    pool = np.flatnonzero((sides == SIDES.index(TRAIN)) | (sides < 0))
    if source.groups is not None:
        _reject_shared_groups(source, sides)
    is_given = {side: _gives(source, side) for side in SIDES}
    fractions = {
        VALIDATION: 0.0 if is_given[VALIDATION] else config.validation_fraction,
        TEST: 0.0 if is_given[TEST] else config.test_fraction,
    }
    if not len(pool):
        raise UserError(f"{source.key}: the split given by {source.split_by} has no training examples; add some")
    sides[pool] = SIDES.index(TRAIN)
    if not any(fractions.values()):
        return sides, []
    strata = _strata(source, pool) if config.stratify else None
    groups = None if source.groups is None else source.groups[pool]
    if strata is not None and groups is not None:
        raise UserError("data.stratify: cannot be combined with groups; remove the key, or the groups")
    parts = split(len(pool), fractions[VALIDATION], config.split, config.split_seed, fractions[TEST], strata, groups)
    for side, part in zip(SIDES, parts, strict=True):
        sides[pool[part]] = SIDES.index(side)
    noun = config.example_noun
    examples = f"training {noun}" if is_given[TRAIN] else noun
    return sides, [describe_split(config, fractions, examples, groups is not None)]


def _gives(source: RawDataset, side: str) -> bool:
    return source.sides is not None and bool((source.sides == SIDES.index(side)).any())


def _reject_shared_groups(source: RawDataset, sides: np.ndarray) -> None:
    """Raise UserError if a group is on two of the sides that the source gives."""
    assert source.groups is not None
    given = np.maximum(sides, 0)  # the others are drawn from those that train
    first, codes = np.unique(source.groups, return_index=True, return_inverse=True)[1:]
    first = first[codes]  # of each row, the first row of its group
    shared = np.flatnonzero(given[first] != given)
    if len(shared):
        row = shared[0]
        raise UserError(
            f"{source.key}: {source.place(first[row])} and {source.place(row)} are of one group, but on the sides "
            f"{SIDES[given[first[row]]]} and {SIDES[given[row]]} of the split given by {source.split_by}; put each "
            "group on one side"
        )


def _strata(source: RawDataset, pool: np.ndarray) -> np.ndarray:
    if source.strata is not None:
        return source.strata[pool]
    if source.spec.targets == "next_token":
        raise UserError("data.stratify: the next token of a text has no classes; remove the key")
    targets = np.asarray(source.arrays[TARGETS][pool])
    if source.spec.targets == "class":
        return targets
    return quantile_strata(targets.reshape(len(targets), -1)[:, 0])


def describe_split(config: DataConfig, fractions: Mapping[str, float], examples: str, is_grouped: bool) -> str:
    """Return a line on how the configured split divides some examples."""
    purposes = {VALIDATION: "validation", TEST: "testing"}
    parts = [(f"{100 * fractions[side]:g} %", purposes[side]) for side in (VALIDATION, TEST) if fractions[side]]
    if config.split == "first" and not is_grouped:
        if len(parts) == 1:
            return f"split: the last {parts[0][0]} of the {examples} are for {parts[0][1]} (data.split: first)"
        (first, first_purpose), (last, last_purpose) = parts
        return (
            f"split: the last {last} of the {examples} are for {last_purpose}, the {first} before them for "
            f"{first_purpose} (data.split: first)"
        )
    shares = f"{parts[0][0]} of the {examples}"
    how = "drawn at random" if config.split == "random" else "the last ones"
    how += " by group" if is_grouped else " within each class or tenth" if config.stratify else ""
    seed = f"data.split_seed: {config.split_seed}" if config.split == "random" else "data.split: first"
    others = "".join(f", and {share} for {purpose}" for share, purpose in parts[1:])
    return f"split: {shares}, {how}, are for {parts[0][1]}{others} ({seed})"


def to_stored(chunk: Chunk, spec: DataSpec, source: RawDataset, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Return examples in the data types of prepared data.

    Raises UserError, naming the row of the source, if a value is not finite or out of range.
    """
    stored = {}
    for name, array in chunk.items():
        dtype = _stored_dtype(name, array.dtype, spec)
        if dtype.kind == "f":
            with np.errstate(over="ignore"):
                stored[name] = array.astype(dtype)
            invalid = ~np.isfinite(stored[name])
            problem = "is NaN, infinite or too large for float32"
        else:
            limit = _limit(name, spec)
            invalid = (array < 0) | (array >= limit) if array.dtype != dtype or dtype != np.uint8 else array >= limit
            stored[name] = array.astype(dtype, copy=False)
            problem = f"is not an integer from 0 to {limit - 1}"
        if name == WEIGHTS:
            negative = stored[name] < 0
            sums = stored[name].reshape(len(array), -1).sum(axis=1)
            if negative.any() and not invalid.any():
                invalid, problem = negative, "is negative"
            elif not invalid.any() and not (sums > 0).all():
                invalid, problem = sums <= 0, "is not above 0: remove the example"
        if invalid.any():
            index = np.flatnonzero(invalid.reshape(len(array), -1).any(axis=1))[0]
            place = source.place(int(rows[index]))
            value = "" if array[index].size > 1 else f" {array[index].item()}"
            raise UserError(f"{source.key}: {place}: the {NOUNS[name]}{value} {problem}")
    return stored


NOUNS = {INPUTS: "input", CATEGORIES: "category", TARGETS: "target", WEIGHTS: "weight"}


def _stored_dtype(name: str, dtype: np.dtype, spec: DataSpec) -> np.dtype:
    if name == CATEGORIES:
        return np.dtype(np.int32)
    if name == TARGETS and spec.targets == "class":
        return np.dtype(np.int64)
    if name == INPUTS and spec.inputs == "tokens":
        return token_dtype(spec.vocabulary)
    return np.dtype(np.uint8 if name == INPUTS and spec.inputs == "images" and dtype == np.uint8 else np.float32)


def _limit(name: str, spec: DataSpec) -> int | np.ndarray:
    if name == CATEGORIES:
        return np.array(spec.categories)
    if name == TARGETS:
        return len(spec.classes)
    return spec.vocabulary if spec.inputs == "tokens" else 2**8


def describe_targets(
    targets: Moments, spec: DataSpec, config: DataConfig, examples: str = "on the training side"
) -> str:
    """Return a line on the scale of numeric targets, with a hint if networks train badly on it.

    Args:
        targets: Mean and variance of the targets, as they are stored.
        spec: What an example is.
        config: Section `data` of the study file.
        examples: The examples that the targets are of, in words.
    """
    mean, deviation = float(np.mean(targets.means)), float(np.mean(targets.variances)) ** 0.5
    name = f"{spec.target_name}: " if spec.target_name else ""
    line = f"targets: {name}mean {mean:.6g}, standard deviation {deviation:.6g} {examples}"
    if 1 / FAR < deviation < FAR and abs(mean) <= FAR * deviation:
        return line
    how = "scale them beforehand"
    if isinstance(config, TableSection) and not config.standardizes_target:
        how = "write `target_transform: standardize` in the section `data`"
    return f"{line}; networks train better on targets with mean 0 and standard deviation 1: {how}"


class _Values:
    """Which values training inputs and targets have, and of images also validation inputs, chunk by chunk."""

    def __init__(self, spec: DataSpec, config: DataConfig, is_fitted: bool):
        self.spec, self.config = spec, config
        self.is_fitted = is_fitted
        self.counts = np.zeros(256, np.int64)
        self.low, self.high = np.inf, -np.inf
        self.targets = Moments(math.prod(spec.target_shape))

    def add(self, chunk: Chunk, side: str) -> None:
        """Include the examples of a chunk of a side."""
        inputs = chunk[INPUTS]
        if side == TRAIN:
            add_targets(self.targets, chunk)
        if side == TEST or not inputs.size:
            return
        if inputs.dtype == np.float32:
            self.low, self.high = min(self.low, inputs.min()), max(self.high, inputs.max())
        elif self.spec.inputs == "images":
            values = inputs.reshape(-1)
            for start in range(0, len(values), COUNT_CHUNK):
                self.counts += np.bincount(values[start : start + COUNT_CHUNK], minlength=256)

    def lines(self) -> list[str]:
        """Return lines for the log, with hints on values that are unlike those that networks train well on."""
        lines = [self._levels()] if self.counts.any() else []
        far = max(abs(self.low), abs(self.high)) > FAR
        if self.spec.inputs == "images" and self.low <= self.high:
            line = f"levels: pixel values are floats from {self.low:g} to {self.high:g}, and are not scaled"
            hint = "; networks train better on values around 0 to 1: divide them by the value of white beforehand"
            lines.append(line + hint if far else line)
        elif self.low <= self.high and not self.is_fitted:
            line = f"inputs: values are from {self.low:g} to {self.high:g}, and are not scaled"
            hint = "; networks train better on inputs with mean 0 and standard deviation 1: scale them beforehand"
            lines.append(line + hint if far else line)
        if self.spec.targets == "numbers":
            lines.append(describe_targets(self.targets, self.spec, self.config))
        return lines

    def _levels(self) -> str:
        used = np.flatnonzero(self.counts)
        line = f"levels: pixel values range from {used[0]} to {used[-1]} and use {len(used)} of 256 levels"
        if self.counts[MIDDLE_LEVEL:].sum() <= BRIGHT_SHARE * self.counts.sum():
            line += "; almost all are in the darker half: if this is not intended, scale the images beforehand, or set "
            line += "data.white_level for 16-bit files"
        return line
