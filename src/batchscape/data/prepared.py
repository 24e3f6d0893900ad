"""The prepared data of a study: one safetensors file that all of its jobs map, and of which they share one copy."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from batchscape.errors import UserError
from batchscape.io.files import write_atomically

IMAGES = ("train_images", "validation_images")
LABELS = ("train_labels", "validation_labels")


@dataclass(frozen=True)
class PreparedData:
    """Both sides of the split.

    Images are (n, channels, height, width), uint8, with the channels last in memory, as convolutions want them; labels
    are (n,), int64, indices of `classes`.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    validation_images: np.ndarray
    validation_labels: np.ndarray
    classes: tuple[str, ...]


def write_prepared(path: Path, data: PreparedData) -> None:
    """Write prepared data; the file is whole or not there. It carries the hash of what it holds."""
    arrays = {part: np.ascontiguousarray(getattr(data, part).transpose(0, 2, 3, 1)) for part in IMAGES}
    arrays |= {part: np.ascontiguousarray(getattr(data, part)) for part in LABELS}
    digest = hashlib.sha256(json.dumps(data.classes).encode())
    for part, array in arrays.items():
        digest.update(f"{part} {array.shape}".encode())
        digest.update(array)

    # One entry, for the library writes several in an order that changes, and equal data shall be equal bytes.
    about = json.dumps({"classes": data.classes, "sha256": digest.hexdigest()})

    def write(partial: Path) -> None:
        save_file(arrays, partial, {"about": about})
        partial.chmod(0o644)  # the library's is for the owner alone, and a group shares its results

    write_atomically(path, write)


def read_prepared(path: Path) -> PreparedData:
    """Map what `write_prepared` wrote: memory is taken page by page as images are read, and all processes share it.

    Raises UserError when the file is missing or damaged.
    """
    with _opened(path) as file:
        images = {part: file.get_tensor(part).numpy().transpose(0, 3, 1, 2) for part in IMAGES}
        labels = {part: file.get_tensor(part).numpy() for part in LABELS}
        classes = tuple(_about(file)["classes"])
        for side, of_side in zip(images.values(), labels.values(), strict=True):
            if side.dtype != np.uint8 or of_side.dtype != np.int64 or of_side.shape != side.shape[:1] or not side.size:
                raise ValueError(f"images {side.dtype} {side.shape}, labels {of_side.dtype} {of_side.shape}")
            if of_side.min() < 0 or of_side.max() >= len(classes):
                raise ValueError(f"labels from {of_side.min()} to {of_side.max()} of {len(classes)} classes")
        return PreparedData(**images, **labels, classes=classes)


def prepared_digest(path: Path) -> str:
    """Return the SHA-256 of the images, labels and classes in a prepared file, as it was written there."""
    with _opened(path) as file:
        return _about(file)["sha256"]


def _about(file: Any) -> dict[str, Any]:
    return json.loads(file.metadata()["about"])


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:  # that of NumPy would copy every array
            yield file
    except FileNotFoundError:
        raise UserError(f"{path}: there is no prepared data; run `snakemake --cores 1 {path}` to make it")
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: is no whole prepared data file ({error}); delete it so that it is made again")
