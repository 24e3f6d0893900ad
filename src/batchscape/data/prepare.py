"""From a configured source to the prepared data of a study."""

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

# More than these would fill the terminal.
CLASSES_IN_A_LINE = 20

# Counted together by their level; NumPy makes integers of eight bytes of them.
VALUES_AT_ONCE = 2**22

# Images are dark if no larger share of their values is above the middle; a few pixels of a camera always are.
MIDDLE = 128
BRIGHT_SHARE = 0.001


class PrepareResult(NamedTuple):
    """What a source gives to a study."""

    data: PreparedData
    """The images of both sides of the split."""

    manifest: pd.DataFrame
    """All that the source holds: file, sha256, class, split (`train`, `validation` or `test`; empty if it was dropped),
    reason (why it was dropped; empty if it was not)."""

    summary: list[str]
    """What was understood, and what was dropped, a line each."""


def prepare(config: DataConfig, threads: int = 1) -> PrepareResult:
    """Load the configured source and split it, as it says itself or else as the config says.

    Images of the side `test` are in the manifest alone: nothing trains or validates on them. Raises UserError when
    there is nothing to use, or the split leaves a side empty.
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
        notes.append(_drawn(config, "images to train on" if TRAIN in sides else "images"))
    data = PreparedData(
        *(to_channels_first(source.images[train]), source.labels[train]),
        *(to_channels_first(source.images[validation]), source.labels[validation]),
        source.classes,
    )
    manifest = _manifest(source, train)
    return PrepareResult(
        data, manifest, [*summarize_manifest(manifest, VALIDATION in sides), *notes, summarize_levels(data)]
    )


def to_channels_first(images: np.ndarray) -> np.ndarray:
    """Return images, (n, height, width, channels), as a view, (n, channels, height, width)."""
    return images.transpose(0, 3, 1, 2)


def _manifest(source: RawDataset, train: np.ndarray) -> pd.DataFrame:
    frame = pd.DataFrame(source.entries, columns=["file", "sha256", "class", "reason", "side"])
    sides = np.full(len(source.images), VALIDATION, dtype=object)
    sides[train] = TRAIN
    used = frame["reason"] == ""
    frame.insert(3, "split", "")
    frame.loc[used, "split"] = TEST
    frame.loc[used & (frame.pop("side") != TEST), "split"] = sides
    return frame


def _drawn(config: DataConfig, images: str) -> str:
    """Return how the split of some images is made, in a line."""
    share = f"{100 * config.validation_fraction:g} % of the {images}"
    if config.split == "first":
        return f"split: the last {share} validate (data.split: first)"
    return f"split: {share} are drawn to validate on (data.split_seed: {config.split_seed})"


def summarize_levels(data: PreparedData) -> str:
    """Return which of the 256 levels of a byte the images use, in a line."""
    counts = np.zeros(256, np.int64)
    for images in (data.train_images, data.validation_images):
        at_once = max(1, VALUES_AT_ONCE // images[0].size)
        for start in range(0, len(images), at_once):
            counts += np.bincount(images[start : start + at_once].ravel(), minlength=256)
    used = np.flatnonzero(counts)
    line = f"levels: pixels are from {used[0]} to {used[-1]}, and use {len(used)} of 256 levels"
    if counts[MIDDLE:].sum() <= BRIGHT_SHARE * counts.sum():
        line += "; almost all are in the darker half: if this is not meant, scale the images beforehand, or set "
        line += "data.white_level for files of 16 bits"
    return line


def summarize_manifest(manifest: pd.DataFrame, given: bool = False) -> list[str]:
    """Return what a person wants to know of a manifest, in lines: what is used, what was dropped and why, and what is
    lopsided. `given`: the split is that of the source. The manifest itself stands beside the prepared data."""
    used = manifest[manifest["reason"] == ""]
    counts = Counter(used["split"])
    lines = [
        f"{len(used):,} of {len(manifest):,} files are used: {counts['train']:,} to train on, "
        f"{counts['validation']:,} to validate on"
        + (f", {counts[TEST]:,} to test on, held out" if counts[TEST] else "")
    ]
    if len(used) < len(manifest):
        reasons = manifest.loc[manifest["reason"] != "", "reason"].str.partition(":")[0].value_counts()
        lines[0] += "; dropped: " + ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())
    kept = used["class"].value_counts(sort=False)
    lines.append(f"{len(kept):,} classes: " + _counts(kept.to_dict()))
    without = sorted(set(manifest["class"]) - {*kept.index, ""})
    if without:
        lines[-1] += f"; without an image that can be used, and so left out: {join_names(without)}"
    contradictory = int(manifest["reason"].str.contains(ANOTHER_CLASS, regex=False).sum())
    if contradictory:
        lines.append(
            f"{contradictory:,} {_files(contradictory)} in two classes; the first class counts, see `another class` in "
            "manifest.csv"
        )
    shared = int(manifest["reason"].str.contains(ANOTHER_SIDE, regex=False).sum())
    if shared:
        lines.append(f"{shared:,} {_files(shared)} on two sides of the split; the first of train, val, test counts")
    for side in ("train", "validation"):
        missing = sorted(set(used["class"]) - set(used.loc[used["split"] == side, "class"]))
        if missing:
            what = "to train on" if side == "train" else "to validate on"
            how = "add some to its folder" if given else "use another data.split_seed or data.split"
            lines.append(f"no image {what} of {join_names(missing)}: {how}")
    return lines


def _counts(counts: dict[str, int]) -> str:
    """Return the number of images of each class, or where there are many classes of the rarest and of the commonest."""
    if len(counts) <= CLASSES_IN_A_LINE:
        return ", ".join(f"{name} ({count:,})" for name, count in counts.items())
    rarest, commonest = min(counts, key=counts.get), max(counts, key=counts.get)
    return f"from {rarest} ({counts[rarest]:,}) to {commonest} ({counts[commonest]:,})"


def _files(count: int) -> str:
    return "file is" if count == 1 else "files are"
