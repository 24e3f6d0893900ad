"""What every source returns."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from batchscape.config.data.section import TaskName
from batchscape.config.data.sources import DataConfig
from batchscape.data.prepared import Chunk
from batchscape.data.spec import TEST, VALIDATION, DataSpec
from batchscape.errors import UserError


class ManifestEntry(NamedTuple):
    """A file of a source, or a part of it that was dropped, and why."""

    file: str
    """Path below the source's folder, or name of what arrays come from."""

    sha256: str
    """Hash of the bytes of the file; empty if it could not be read."""

    label: str = ""
    """Name of the class; empty for a file outside the class folders, or of examples of several classes or of none."""

    reason: str = ""
    """Why it was dropped, as `kind: detail`; empty if it is used."""

    side: str = ""
    """Side of the split given by the source: `train`, `validation` or `test`; empty if it gives none."""

    examples: int = 1
    """How many examples it contains."""


# Parts of the reason of a duplicate; the first class or side that has the file counts.
ANOTHER_CLASS = "of another class"
ANOTHER_SIDE = "on another side of the split"

# Up to this many different integers are accepted as classes, however few examples each one has.
MAX_UNCHECKED_CLASSES = 10
MIN_EXAMPLES_PER_CLASS = 3
# More different integers than this are measured values if there are gaps between them.
MAX_CLASSES_WITH_GAPS = 100


class LoadOptions(NamedTuple):
    """What `load` of a source may need besides its section of the study file."""

    threads: int = 1
    """Number of threads that read and decode files."""

    task: TaskName = "classification"
    """Name of the task, one of the section's `tasks`: it decides what the targets are."""

    folder: Path | None = None
    """Folder for files without a name (`Scratch`), on the file system of the results; None: the system's."""


DEFAULT_OPTIONS = LoadOptions()


class Fitted(NamedTuple):
    """What the training side of a source decides."""

    spec: DataSpec
    """What an example is, after `transform`."""

    transform: Callable[[Chunk], Chunk]
    """Returns some rows of the source's arrays, of any side, as they are stored; there are as many as before."""

    notes: Sequence[str] = ()
    """Lines for the log. They are read after all rows are transformed, so `transform` may add to a list of them."""


@dataclass(frozen=True)
class RawDataset:
    """The usable examples of a source, in its own order, all sides together, and a record of all that it contains.

    `prepare` divides the rows into sides, calls `fit` with those that train, applies what it returns to each chunk of
    rows, and stores the chunks. Floats become float32, class targets int64, and tokens the smallest type that holds the
    vocabulary; a value that is NaN, infinite or out of range is reported with `locate`.

    Attributes:
        spec: What an example is; with `fit`, only `inputs` and `targets` matter.
        arrays: (n, …) each, as in `Dataset.arrays`: `inputs`, and where there are any, `categories`, `targets` and
            `weights`. With `fit` they may be anything that it takes. They may be mapped files, such as those of
            `Scratch.read`, of any size: they are read chunk by chunk, in order.
        entries: Everything that the source contains. The entries without a reason are those of the rows, in order, each
            for as many rows as it has examples.
        notes: How the source was interpreted, one line each, for the log.
        sides: (n,), integers, the side of each row as its index in SIDES, or -1 if the source does not give it. None:
            it gives none.
        groups: (n,), integers or text: rows with the same value stay on one side, if the study file asks for it or
            the source always does. None: every row is its own group.
        strata: (n,), integers or text: what `data.stratify` spreads evenly over the sides. None: the class, or the
            decile of the (first) number of the target.
        fit: Called with the training rows of `arrays`, which can be iterated over several times and yield chunks.
            None: the arrays are stored as they are.
        locate: Returns the name of a row for errors, such as `data.csv, line 17`. None: `example 17`.
        key: Key of the study file to name in errors.
        split_by: What gives the sides, for the log and errors, such as `data.split_column` or `the folders of pets`.
        is_split: Whether `sides` are those that the keys of the split ask for, as of text, which is split before it is
            cut into examples.
    """

    spec: DataSpec
    arrays: Mapping[str, np.ndarray]
    entries: Sequence[ManifestEntry]
    notes: tuple[str, ...] = ()
    sides: np.ndarray | None = None
    groups: np.ndarray | None = None
    strata: np.ndarray | None = None
    fit: Callable[[Iterable[Chunk]], Fitted] | None = None
    locate: Callable[[int], str] | None = None
    key: str = "data.source"
    split_by: str = "the source"
    is_split: bool = False

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(next(iter(self.arrays.values())))

    def place(self, row: int) -> str:
        """Return the name of a row for errors."""
        return self.locate(row) if self.locate else f"example {row}"


def join_names(names: Iterable[str], max_names: int = 6) -> str:
    """Return names in natural order (2 before 10), joined by commas and truncated to the first few."""
    names = sorted(names, key=_natural_key)
    return ", ".join(names[:max_names]) + (f" and {len(names) - max_names} more" if len(names) > max_names else "")


def _natural_key(name: str) -> list[str | int]:
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def reject_split_keys(given: set[str], config: DataConfig, split_by: str) -> None:
    """Raise UserError if a study file sets keys of the split that a source gives.

    Args:
        given: The sides that the source gives.
        config: Section `data` of the study file.
        split_by: What gives them, for the error.
    """
    useless = set()
    if VALIDATION in given:
        useless |= {"validation_fraction"} | (set() if config.test_fraction else {"split", "split_seed", "stratify"})
    if TEST in given:
        useless |= {"test_fraction"} | ({"split", "split_seed", "stratify"} if VALIDATION in given else set())
    keys = [key for key in config.split_keys if key in useless] if config.may_give_split else []
    if keys:
        names = ", ".join(f"data.{key}" for key in keys)
        raise UserError(
            f"{names}: cannot be set, because the split is given by {split_by}; remove "
            f"{'these keys' if len(keys) > 1 else 'the key'}, or divide the examples otherwise"
        )


def require_task(config: DataConfig, task: TaskName) -> None:
    """Raise UserError if a source cannot give the targets of a task."""
    if task not in config.tasks:
        raise UserError(
            f"task.name: {task} is not possible with data.source {config.source}, which gives "
            f"{' or '.join(config.tasks)}; use another task or source"
        )


def require_two_classes(classes: Sequence[str]) -> None:
    """Raise UserError if there are fewer than two classes."""
    if len(classes) < 2:
        raise UserError(f"data: only one class ({classes[0]}) has usable examples; at least two are needed")


def encode_labels(labels: np.ndarray, classes: Sequence[str] | None, key: str) -> tuple[np.ndarray, list[str]]:
    """Encode labels as class indices.

    Args:
        labels: (n,), integers, booleans or strings.
        classes: Names of the classes, if labels are indices already.
        key: Key of the study file to name in errors.

    Returns:
        The indices, (n,) int64, and the names of the classes.

    Raises:
        UserError: The labels are of another type, out of range, or look like measured values.
    """
    if labels.dtype == object and all(isinstance(label, str) for label in labels):  # as pandas stores strings
        labels = labels.astype(str)
    if labels.dtype.kind not in "iubUS":
        raise UserError(
            f"{key}: labels are {labels.dtype}; classes must be integers or text; for numbers, write "
            "`task: {name: regression}`"
        )
    if classes is not None:
        names = _to_names(classes, key)
        if labels.dtype.kind not in "iub" or labels.min() < 0 or labels.max() >= len(names):
            raise UserError(f"{key}: labels must be integers from 0 to {len(names) - 1}, indices of the classes")
        return labels.astype(np.int64), names
    values, indices, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if values.dtype.kind in "iu":
        reject_measured_values(values, counts, key)
    names = [value.decode() if isinstance(value, bytes) else str(value) for value in values.tolist()]
    return indices.astype(np.int64), names


def reject_measured_values(values: np.ndarray, counts: np.ndarray, key: str) -> None:
    """Raise UserError if integer labels look like measured values, such as ages or prices, instead of classes.

    Classes have several examples each, and large sets of classes are numbered without gaps (CIFAR-100, ImageNet).
    """
    rare = len(values) > MAX_UNCHECKED_CLASSES and np.median(counts) < MIN_EXAMPLES_PER_CLASS
    gaps = len(values) > MAX_CLASSES_WITH_GAPS and int(values[-1]) - int(values[0]) >= len(values)
    if rare or gaps:
        raise UserError(
            f"{key}: the labels are {len(values)} different integers from {values[0]} to {values[-1]}, "
            + (f"half of them with fewer than {MIN_EXAMPLES_PER_CLASS} examples; " if rare else "with gaps; ")
            + "these look like measured values: predict them with `task: {name: regression}`, group them into "
            "intervals, or if they are classes, give the labels as text"
        )


def _to_names(classes: Any, key: str) -> list[str]:
    names = [str(name) for name in classes] if isinstance(classes, list | tuple | np.ndarray) else []
    if not names or len(set(names)) < len(names):
        raise UserError(f"{key}: the classes must be a list of unique names")
    return names
