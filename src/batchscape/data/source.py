"""What a source of images gives, whichever it is."""

import hashlib
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from batchscape.errors import UserError


class ManifestEntry(NamedTuple):
    """A file of a source, or an element of its array, and what became of it."""

    file: str
    """Path below the source's folder, or the array and the index."""

    sha256: str
    """Hash of the file's bytes, or of the element's; empty if there was nothing to read."""

    label: str
    """Name of the class."""

    reason: str = ""
    """Why it was dropped; empty if it was not."""

    side: str = ""
    """The side of the split that the source puts it on: `train`, `validation` or `test`; empty if it gives no split."""


# In the reason of an entry: the same file counts for the first class or side that has it.
ANOTHER_CLASS = "of another class"
ANOTHER_SIDE = "on another side of the split"

# Of fewer numbers, each may be a class whatever its number of images.
FEW_CLASSES = 10
IMAGES_OF_A_CLASS = 3
# Of more numbers than these, gaps between them say that they were measured.
NUMBERED_CLASSES = 100


@dataclass(frozen=True)
class RawDataset:
    """The images of a source that can be used, in its own order, and an account of all that it holds."""

    images: np.ndarray
    """(n, height, width, channels), uint8."""

    labels: np.ndarray
    """Index of each image's class, (n,), int64."""

    classes: tuple[str, ...]
    """Names of the classes."""

    entries: Sequence[ManifestEntry]
    """All that the source holds; those without a reason that are not on the side `test` are the images, in the same
    order."""

    notes: tuple[str, ...] = ()
    """What a user wants to know of how it was read, a line each."""


def join_names(names: Iterable[str], most: int = 6) -> str:
    """Return names in order, numbers in them by value, and only the number of those beyond the first few."""
    names = sorted(names, key=_by_numbers)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _by_numbers(name: str) -> list[str | int]:
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def from_arrays(
    images: np.ndarray, labels: np.ndarray, classes: Sequence[str] | None, name: str, key: str
) -> RawDataset:
    """Return arrays as a source.

    `images` is (n, height, width) or (n, height, width, channels), uint8, or floats from 0 to 1, which become bytes.
    `labels`, (n,), are indices into `classes`, or without these any values, each of them a class. `name` stands for the
    arrays in the manifest, `key` for the key of the study file in what is raised.

    Raises UserError when the arrays are no such images and labels.
    """
    images, labels = _as_array(images, "images", key), _as_array(labels, "labels", key)
    validate_images(images.shape, images.dtype, labels.shape, key)
    images = to_uint8(images.reshape(*images.shape[:3], -1), key)
    labels, classes = encode_labels(labels, classes, key)
    entries = [
        ManifestEntry(f"{name}[{index}]", hashlib.sha256(image.tobytes()).hexdigest(), classes[label])
        for index, (image, label) in enumerate(zip(images, labels, strict=True))
    ]
    return RawDataset(images, labels, tuple(classes), entries)


def validate_images(shape: tuple[int, ...], dtype: np.dtype, labels_shape: tuple[int, ...], key: str) -> None:
    """Raise UserError if arrays of these shapes and types are no images with their labels."""
    if len(shape) not in (3, 4) or not math.prod(shape):
        raise UserError(
            f"{key}: the images have shape {shape}; they must be (n, height, width) or "
            "(n, height, width, channels), with n at least 1"
        )
    if has_channels_first(shape):
        raise UserError(f"{key}: images of shape {shape} have channels first; np.moveaxis(images, 1, -1) mends it")
    if dtype.kind in "iu" and dtype != np.uint8:
        raise UserError(
            f"{key}: images are {dtype}; they must be uint8, or floats from 0 to 1: divide them by the value that is "
            "white (255 for 8 bits, 4095 for 12, 65535 for 16)"
        )
    if dtype.kind != "f" and dtype != np.uint8:
        raise UserError(f"{key}: images are {dtype}; they must be uint8, or floats from 0 to 1")
    if labels_shape != shape[:1]:
        raise UserError(
            f"{key}: labels of shape {labels_shape} for {shape[0]} images; give one label an image"
            + (
                ", such as labels[:, 0], or of one column a class labels.argmax(axis=1)"
                if len(labels_shape) == 2
                else ""
            )
        )


def require_two_classes(classes: Sequence[str]) -> None:
    """Raise UserError if there is nothing to tell apart."""
    if len(classes) < 2:
        raise UserError(f"data: only one class ({classes[0]}) has images that can be used; there must be at least two")


def encode_labels(labels: np.ndarray, classes: Sequence[str] | None, key: str) -> tuple[np.ndarray, list[str]]:
    """Return labels as indices of classes, and the names of these. Raises UserError if they are no classes."""
    if labels.dtype == object and all(isinstance(label, str) for label in labels):  # as pandas has them
        labels = labels.astype(str)
    if labels.dtype.kind not in "iubUS":
        raise UserError(f"{key}: labels are {labels.dtype}; they must be whole numbers or text")
    if classes is None:
        values, labels, counts = np.unique(labels, return_inverse=True, return_counts=True)
        if values.dtype.kind in "iu":
            _require_classes(values, counts, key)
        classes = [value.decode() if isinstance(value, bytes) else str(value) for value in values.tolist()]
    else:
        classes = _as_names(classes, key)
        if labels.dtype.kind not in "iub" or labels.min() < 0 or labels.max() >= len(classes):
            raise UserError(
                f"{key}: labels must be whole numbers from 0 to {len(classes) - 1}, one for each of the classes"
            )
    return labels.astype(np.int64), classes


def _require_classes(values: np.ndarray, counts: np.ndarray, key: str) -> None:
    """Raise UserError if whole numbers look measured rather than those of classes.

    Classes have several images each, and where there are many they are numbered without gaps. So have CIFAR-100 and
    ImageNet; ages, prices and counts have not.
    """
    few = len(values) > FEW_CLASSES and np.median(counts) < IMAGES_OF_A_CLASS
    gaps = len(values) > NUMBERED_CLASSES and int(values[-1]) - int(values[0]) >= len(values)
    if few or gaps:
        raise UserError(
            f"{key}: the labels are {len(values)} different whole numbers from {values[0]} to {values[-1]}, "
            + (f"half of them on fewer than {IMAGES_OF_A_CLASS} images; " if few else "with gaps between; ")
            + "these look like measured values, which cannot be predicted here: give intervals of them as labels, "
            "or if they are classes, labels as text"
        )


def has_channels_first(shape: tuple[int, ...]) -> bool:
    """Say whether images of this shape are (n, channels, height, width): of one or three channels, and so wide that
    these are no channels."""
    return len(shape) == 4 and shape[1] in (1, 3) and shape[3] > 4


def _as_array(values: Any, what: str, key: str) -> np.ndarray:
    try:
        return np.asarray(values)
    except Exception as error:  # rows of different lengths, a tensor on a GPU, …
        said = " ".join(str(error).split())
        raise UserError(f"{key}: the {what} cannot be made a NumPy array: {said}")


def _as_names(classes: Any, key: str) -> list[str]:
    names = [str(name) for name in classes] if isinstance(classes, list | tuple | np.ndarray) else []
    if not names or len(set(names)) < len(names):
        raise UserError(f"{key}: the classes must be a list of names, each once")
    return names


def to_uint8(images: np.ndarray, key: str) -> np.ndarray:
    """Return images, uint8 or floats, as uint8; floats must lie in [0, 1]. Raises UserError if they do not."""
    if images.dtype == np.uint8:
        return images
    broken = np.flatnonzero(~np.isfinite(images).all(axis=tuple(range(1, images.ndim))))
    if len(broken):
        raise UserError(
            f"{key}: {len(broken)} of the {len(images)} images have pixels that are NaN or infinite, the first one is "
            f"number {broken[0]} (from 0); mend them or leave them out"
        )
    low, high = images.min(), images.max()
    if not (low >= 0 and high <= 1):
        raise UserError(f"{key}: images are floats from {low:g} to {high:g}; they must be uint8, or floats from 0 to 1")
    return np.round(images * 255).astype(np.uint8)
