"""The manifest of the prepared data: which files and examples a source contains, and what became of them."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from batchscape.data.source import ANOTHER_CLASS, ANOTHER_SIDE, ManifestEntry, join_names
from batchscape.data.spec import SIDES, TEST

# With more classes the log has only the smallest and the largest one.
MAX_CLASSES_LISTED = 20

# Up to so many examples of files with many of them are listed one by one.
MAX_EXAMPLES_LISTED = 10_000

# Characters without a glyph, such as the carriage return in the name of the icon of a folder of macOS.
CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f]")

COLUMNS = ["file", "sha256", "class", "split", "reason"]

SIDE_KINDS = {"train": "training", "validation": "validation", "test": "test"}


def make_manifest(
    entries: Sequence[ManifestEntry], sides: np.ndarray, labels: np.ndarray, classes: Sequence[str]
) -> pd.DataFrame:
    """Return what a source contains, in its order.

    Args:
        entries: As in RawDataset.
        sides: (n,), the side of each example as its index in SIDES.
        labels: (n,), the class of each example, or -1 if it has none.
        classes: Names of the classes.

    Returns:
        A table with the columns file, sha256, class, split (empty if it was dropped) and reason (why it was dropped;
        empty if it was not). A file with one example, such as an image, is a row. The examples of other files are rows
        as well, named `file[index]`, if there are at most MAX_EXAMPLES_LISTED in all; otherwise there is a row for each
        file, class and side, and in both cases a column `examples` with their number. Control characters in names are
        escaped.
    """
    are_examples_listed = len(sides) <= MAX_EXAMPLES_LISTED
    rows: list[tuple[str, str, str, str, str, int]] = []
    start = 0
    for entry in entries:
        if entry.reason:
            rows.append((entry.file, entry.sha256, entry.label, "", entry.reason, entry.examples))
            continue
        if entry.examples == 0:  # a file with something else of the examples of another one, such as their labels
            rows.append((entry.file, entry.sha256, "", "", "", 0))
            continue
        part = slice(start, start + entry.examples)
        start += entry.examples
        if entry.examples == 1:
            rows.append(
                (entry.file, entry.sha256, entry.label or _name(labels[part][0], classes), SIDES[sides[part][0]], "", 1)
            )
        elif are_examples_listed:
            rows += [
                (f"{entry.file}[{index}]", entry.sha256, _name(label, classes), SIDES[side], "", 1)
                for index, (label, side) in enumerate(zip(labels[part], sides[part], strict=True))
            ]
        else:
            codes = (labels[part] + 1) * len(SIDES) + sides[part]
            rows += [
                (entry.file, entry.sha256, _name(code // len(SIDES) - 1, classes), SIDES[code % len(SIDES)], "", count)
                for code, count in zip(*map(np.ndarray.tolist, np.unique(codes, return_counts=True)), strict=True)
            ]
    manifest = pd.DataFrame(rows, columns=[*COLUMNS, "examples"])
    for column in ("file", "class", "reason"):
        # Python's CSV writer does not quote a carriage return, at which readers end the row.
        manifest[column] = manifest[column].map(_escape)
    return manifest.drop(columns="examples") if all(entry.examples == 1 for entry in entries) else manifest


def _escape(name: str) -> str:
    return CONTROL_CHARACTER.sub(lambda match: match[0].encode("unicode_escape").decode(), name)


def _name(label: int, classes: Sequence[str]) -> str:
    return classes[label] if label >= 0 else ""


def summarize_manifest(manifest: pd.DataFrame, split_is_given: bool = False) -> list[str]:
    """Return lines on what is used, what was dropped and why, and which classes lack examples.

    Args:
        manifest: As `make_manifest` returns it, or as read from its file.
        split_is_given: Whether the split is that of the source instead of the config.

    Returns:
        The lines, for the log and the report.
    """
    what = "examples" if "examples" in manifest else "files"
    manifest = manifest.assign(examples=manifest["examples"].astype(int) if "examples" in manifest else 1)
    # A file without examples, such as one of labels, has no class; the empty text may be the name of one.
    used = manifest[(manifest["reason"] == "") & (manifest["examples"] > 0)]
    counts = Counter(used.groupby("split")["examples"].sum().to_dict())
    lines = [
        f"{counts.total():,} of {manifest['examples'].sum():,} {what} are used: {counts['train']:,} for training, "
        f"{counts['validation']:,} for validation" + (f", {counts[TEST]:,} for testing" if counts[TEST] else "")
    ]
    if (manifest["reason"] != "").any():
        lines[0] += describe_dropped(zip(manifest["reason"], manifest["examples"], strict=True))
    if not (used["class"] != "").any():
        return lines
    class_counts = used.groupby("class", sort=False)["examples"].sum()
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
    for side, kind in SIDE_KINDS.items():
        missing = sorted(set(used["class"]) - set(used.loc[used["split"] == side, "class"]))
        if missing and counts[side] and not (side == TEST and what == "files"):
            fix = "use another data.split_seed or data.split"
            if split_is_given:
                fix = "add some to its folder" if what == "files" else "add some, or change the split that is given"
            what_kind = "images" if what == "files" else "examples"
            lines.append(f"no {kind} {what_kind} of {join_names(missing)}: {fix}")
    return lines


def describe_dropped(reasons: Iterable[tuple[str, int]]) -> str:
    """Return how many examples were dropped for each reason, the most frequent first; empty if none was.

    Args:
        reasons: The reason of each entry, empty if it is used, and its number of examples. What follows a colon in a
            reason is not shown.
    """
    counts: dict[str, int] = {}
    for reason, count in sorted(reasons):
        kind = reason.partition(":")[0]
        counts[kind] = counts.get(kind, 0) + count
    counts.pop("", None)
    shown = sorted(counts.items(), key=lambda item: -item[1])
    return "; dropped: " * bool(shown) + ", ".join(f"{count:,} {reason}" for reason, count in shown)


def _format_counts(counts: Mapping[str, int]) -> str:
    """Return the number of images of each class, or if there are many classes, of the smallest and the largest one."""
    if len(counts) <= MAX_CLASSES_LISTED:
        return ", ".join(f"{name} ({count:,})" for name, count in counts.items())
    smallest, largest = min(counts, key=lambda name: counts[name]), max(counts, key=lambda name: counts[name])
    return f"from {smallest} ({counts[smallest]:,}) to {largest} ({counts[largest]:,})"


def _files_are(count: int) -> str:
    return "file is" if count == 1 else "files are"
