"""Preparation of a configured source as the data of a study."""

from collections import Counter
from importlib import import_module
from typing import NamedTuple

import numpy as np
import pandas as pd

from batchscape.config.data import DataConfig, source_module
from batchscape.data.prepared import PreparedData
from batchscape.data.source import ANOTHER_CLASS, ANOTHER_SIDE, RawDataset, join_names, require_two_classes
from batchscape.data.split import TEST, TRAIN, VALIDATION, split
from batchscape.errors import UserError

# With more classes the log has only the smallest and the largest one.
MAX_CLASSES_LISTED = 20

# Values to count at once; NumPy converts them to integers of eight bytes.
COUNT_CHUNK = 2**22

# Images are reported as dark if at most this share of their values is at or above the middle level; a few pixels of a
# camera are always bright.
MIDDLE_LEVEL = 128
BRIGHT_SHARE = 0.001


class PrepareResult(NamedTuple):
    """The prepared data of a study, and a record of how it was made."""

    data: PreparedData
    """The images of both sides of the split."""

    manifest: pd.DataFrame
    """Everything that the source contains. Columns: file, sha256, class, split (`train`, `validation` or `test`; empty
    if it was dropped), reason (why it was dropped; empty if it was not)."""

    summary: list[str]
    """How the source was interpreted and what was dropped, one line each, for the log."""


def prepare(config: DataConfig, threads: int = 1) -> PrepareResult:
    """Load the configured source and split it, as the source itself or otherwise the config says.

    Images of the side `test` are only in the manifest: nothing trains or validates on them.

    Args:
        config: Section `data` of the study file.
        threads: Number of threads that read and decode files.

    Returns:
        The prepared data, the manifest, and lines for the log.

    Raises:
        UserError: The source has no usable images, or the split leaves a side empty.
    """
    source = import_module(source_module(config.source)).load(config, threads)
    require_two_classes(source.classes)
    sides = np.array([entry.side for entry in source.entries if not entry.reason and entry.side != TEST])
    notes = [*source.notes]
    if VALIDATION in sides:
        train, validation = np.flatnonzero(sides == TRAIN), np.flatnonzero(sides == VALIDATION)
    else:
        try:
            train, validation = split(len(source.images), config.validation_fraction, config.split, config.split_seed)
        except ValueError as error:
            raise UserError(f"data.validation_fraction: {error}; choose a fraction such as 0.2")
        notes.append(_describe_split(config, "training images" if TRAIN in sides else "images"))
    data = PreparedData(
        to_channels_first(source.images[train]),
        source.labels[train],
        to_channels_first(source.images[validation]),
        source.labels[validation],
        source.classes,
    )
    manifest = _make_manifest(source, train)
    lines = summarize_manifest(manifest, split_is_given=VALIDATION in sides)
    return PrepareResult(data, manifest, [*lines, *notes, summarize_levels(data)])


def to_channels_first(images: np.ndarray) -> np.ndarray:
    """Return images, (n, height, width, channels), as a view, (n, channels, height, width)."""
    return images.transpose(0, 3, 1, 2)


def _make_manifest(source: RawDataset, train: np.ndarray) -> pd.DataFrame:
    manifest = pd.DataFrame(source.entries, columns=["file", "sha256", "class", "reason", "side"])
    sides = np.full(len(source.images), VALIDATION, dtype=object)
    sides[train] = TRAIN
    used = manifest["reason"] == ""
    manifest.insert(3, "split", "")
    manifest.loc[used, "split"] = TEST
    manifest.loc[used & (manifest.pop("side") != TEST), "split"] = sides
    return manifest


def _describe_split(config: DataConfig, images: str) -> str:
    """Return a line on how the configured split divides some images."""
    share = f"{100 * config.validation_fraction:g} % of the {images}"
    if config.split == "first":
        return f"split: the last {share} are for validation (data.split: first)"
    return f"split: {share}, drawn at random, are for validation (data.split_seed: {config.split_seed})"


def summarize_levels(data: PreparedData) -> str:
    """Return a line on which of the 256 levels of a byte the images use.

    Args:
        data: The prepared data.

    Returns:
        The line, with a warning if almost all values are dark.
    """
    counts = np.zeros(256, np.int64)
    for images in (data.train_images, data.validation_images):
        chunk = max(1, COUNT_CHUNK // images[0].size)
        for start in range(0, len(images), chunk):
            counts += np.bincount(images[start : start + chunk].ravel(), minlength=256)
    used = np.flatnonzero(counts)
    line = f"levels: pixel values range from {used[0]} to {used[-1]} and use {len(used)} of 256 levels"
    if counts[MIDDLE_LEVEL:].sum() <= BRIGHT_SHARE * counts.sum():
        line += "; almost all are in the darker half: if this is not intended, scale the images beforehand, or set "
        line += "data.white_level for 16-bit files"
    return line


def summarize_manifest(manifest: pd.DataFrame, split_is_given: bool = False) -> list[str]:
    """Return lines on what is used, what was dropped and why, and which classes lack images.

    Args:
        manifest: As in PrepareResult.
        split_is_given: Whether the split is that of the source instead of the config.

    Returns:
        The lines, for the log and the report.
    """
    used = manifest[manifest["reason"] == ""]
    counts = Counter(used["split"])
    lines = [
        f"{len(used):,} of {len(manifest):,} files are used: {counts['train']:,} for training, "
        f"{counts['validation']:,} for validation"
        + (f", {counts[TEST]:,} held out for testing" if counts[TEST] else "")
    ]
    if len(used) < len(manifest):
        reasons = manifest.loc[manifest["reason"] != "", "reason"].str.partition(":")[0].value_counts()
        lines[0] += "; dropped: " + ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())
    class_counts = used["class"].value_counts(sort=False)
    lines.append(f"{len(class_counts):,} classes: " + _format_counts(class_counts.to_dict()))
    without_images = sorted(set(manifest["class"]) - {*class_counts.index, ""})
    if without_images:
        lines[-1] += f"; left out because they have no usable images: {join_names(without_images)}"
    in_two_classes = int(manifest["reason"].str.contains(ANOTHER_CLASS, regex=False).sum())
    if in_two_classes:
        lines.append(
            f"{in_two_classes:,} {_files_are(in_two_classes)} in two classes; the first class counts, see "
            f"`{ANOTHER_CLASS}` in manifest.csv"
        )
    on_two_sides = int(manifest["reason"].str.contains(ANOTHER_SIDE, regex=False).sum())
    if on_two_sides:
        lines.append(
            f"{on_two_sides:,} {_files_are(on_two_sides)} on two sides of the split; the first of train, val, test "
            "counts"
        )
    for side, kind in (("train", "training"), ("validation", "validation")):
        missing = sorted(set(used["class"]) - set(used.loc[used["split"] == side, "class"]))
        if missing:
            fix = "add some to its folder" if split_is_given else "use another data.split_seed or data.split"
            lines.append(f"no {kind} images of {join_names(missing)}: {fix}")
    return lines


def _format_counts(counts: dict[str, int]) -> str:
    """Return the number of images of each class, or if there are many classes, of the smallest and the largest one."""
    if len(counts) <= MAX_CLASSES_LISTED:
        return ", ".join(f"{name} ({count:,})" for name, count in counts.items())
    smallest, largest = min(counts, key=lambda name: counts[name]), max(counts, key=lambda name: counts[name])
    return f"from {smallest} ({counts[smallest]:,}) to {largest} ({counts[largest]:,})"


def _files_are(count: int) -> str:
    return "file is" if count == 1 else "files are"
