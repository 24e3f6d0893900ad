"""From a configured source to the prepared data of a study."""

from collections import Counter

import numpy as np
import pandas as pd

from batchscape.config.data import DataConfig
from batchscape.data import arrays, cats_vs_dogs, digits, image_folder, own, synthetic
from batchscape.data.prepared import PreparedData
from batchscape.data.source import Source
from batchscape.data.split import split
from batchscape.errors import UserError

LOADERS = {
    "digits": digits.load,
    "image_folder": image_folder.load,
    "arrays": arrays.load,
    "synthetic": synthetic.load,
    "cats_vs_dogs": cats_vs_dogs.load,
}


def prepare(config: DataConfig, threads: int = 1) -> tuple[PreparedData, pd.DataFrame]:
    """Load the configured source and split it; return the data, and the manifest of all that the source holds.

    Columns of the manifest: file, sha256, class, split (`train` or `validation`; empty if dropped), reason (why it was
    dropped; empty if not). Raises UserError when there is nothing to use, or the split leaves a side empty.
    """
    source = LOADERS.get(config.source, own.load)(config, threads)
    if len(source.classes) < 2:
        raise UserError(
            f"data: only one class ({source.classes[0]}) has images that can be used; there must be at least two"
        )
    try:
        train, validation = split(len(source.images), config.validation_fraction, config.split, config.split_seed)
    except ValueError as error:
        raise UserError(f"data.validation_fraction: {error}; choose a fraction such as 0.2")
    data = PreparedData(
        *(channels_first(source.images[train]), source.labels[train]),
        *(channels_first(source.images[validation]), source.labels[validation]),
        source.classes,
    )
    return data, _manifest(source, train)


def channels_first(images: np.ndarray) -> np.ndarray:
    """Return images, (n, height, width, channels), as a view, (n, channels, height, width)."""
    return images.transpose(0, 3, 1, 2)


def _manifest(source: Source, train: np.ndarray) -> pd.DataFrame:
    frame = pd.DataFrame(source.entries, columns=["file", "sha256", "class", "reason"])
    sides = np.full(len(source.images), "validation", dtype=object)
    sides[train] = "train"
    frame.insert(3, "split", "")
    frame.loc[frame["reason"] == "", "split"] = sides
    return frame


def summary(manifest: pd.DataFrame) -> list[str]:
    """Return what a person wants to know of a manifest, in lines: what is used, what was dropped and why, and what is
    lopsided. The manifest itself stands beside the prepared data."""
    used = manifest[manifest["reason"] == ""]
    counts = Counter(used["split"])
    lines = [
        f"{len(used):,} of {len(manifest):,} files are used: {counts['train']:,} to train on, "
        f"{counts['validation']:,} to validate on"
    ]
    if len(used) < len(manifest):
        reasons = manifest.loc[manifest["reason"] != "", "reason"].str.partition(":")[0].value_counts()
        lines[0] += "; dropped: " + ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())
    kept = used["class"].value_counts(sort=False)
    lines.append(f"{len(kept)} classes: " + ", ".join(f"{name} ({count:,})" for name, count in kept.items()))
    without = sorted(set(manifest["class"]) - {*kept.index, ""})
    if without:
        lines[-1] += f"; without an image that can be used, and so left out: {', '.join(without)}"
    contradictory = int(manifest["reason"].str.endswith("of another class").sum())
    if contradictory:
        lines.append(
            f"{contradictory:,} files stand in two classes, and count for the first: see `another class` there"
        )
    for side in ("train", "validation"):
        missing = sorted(set(used["class"]) - set(used.loc[used["split"] == side, "class"]))
        if missing:
            what = "to train on" if side == "train" else "to validate on"
            lines.append(f"no image {what} of {', '.join(missing)}: use another data.split_seed or data.split")
    return lines
