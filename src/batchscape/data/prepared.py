"""The prepared data of a study: one safetensors file that all of its jobs map, sharing one copy in memory."""

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

    Attributes:
        train_images: (n, channels, height, width), uint8, channels-last in memory, the layout that convolutions prefer.
        train_labels: (n,), int64, indices into `classes`.
        validation_images: As `train_images`.
        validation_labels: As `train_labels`.
        classes: Names of the classes.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    validation_images: np.ndarray
    validation_labels: np.ndarray
    classes: tuple[str, ...]


def write_prepared(path: Path, data: PreparedData) -> None:
    """Write prepared data atomically, with a hash of its content.

    Args:
        path: The safetensors file. Images are stored as (n, height, width, channels).
        data: What to write.
    """
    arrays = {name: np.ascontiguousarray(getattr(data, name).transpose(0, 2, 3, 1)) for name in IMAGES}
    arrays |= {name: np.ascontiguousarray(getattr(data, name)) for name in LABELS}
    digest = hashlib.sha256(json.dumps(data.classes).encode())
    for name, array in arrays.items():
        digest.update(f"{name} {array.shape}".encode())
        digest.update(array.data)

    # One entry, because safetensors writes several in varying order and equal data must give equal bytes.
    metadata = json.dumps({"classes": data.classes, "sha256": digest.hexdigest()})

    def write(partial: Path) -> None:
        save_file(arrays, partial, {"about": metadata})
        partial.chmod(0o644)  # safetensors writes files that only their owner can read; results are shared

    write_atomically(path, write)


def read_prepared(path: Path) -> PreparedData:
    """Map prepared data into memory; pages are loaded as images are read, and all processes share them.

    Args:
        path: A file that `write_prepared` wrote.

    Returns:
        The data, as views of the file.

    Raises:
        UserError: The file is missing, corrupt or incomplete.
    """
    with _open_prepared(path) as file:
        images = {name: file.get_tensor(name).numpy().transpose(0, 3, 1, 2) for name in IMAGES}
        labels = {name: file.get_tensor(name).numpy() for name in LABELS}
        classes = tuple(_read_metadata(file)["classes"])
        for x, y in zip(images.values(), labels.values(), strict=True):
            if x.dtype != np.uint8 or y.dtype != np.int64 or y.shape != x.shape[:1] or not x.size:
                raise ValueError(f"images {x.dtype} {x.shape}, labels {y.dtype} {y.shape}")
            if y.min() < 0 or y.max() >= len(classes):
                raise ValueError(f"labels from {y.min()} to {y.max()} of {len(classes)} classes")
        return PreparedData(**images, **labels, classes=classes)


def prepared_digest(path: Path) -> str:
    """Return the SHA-256 of the images, labels and classes that is stored in a prepared file.

    Raises:
        UserError: The file is missing, corrupt or incomplete.
    """
    with _open_prepared(path) as file:
        return _read_metadata(file)["sha256"]


def _read_metadata(file: safe_open) -> dict[str, Any]:
    return json.loads(file.metadata()["about"])


@contextmanager
def _open_prepared(path: Path) -> Iterator[safe_open]:
    try:
        with safe_open(path, framework="pt") as file:  # framework "np" would copy every array
            yield file
    except FileNotFoundError:
        raise UserError(f"{path}: there is no prepared data; run `snakemake --cores 1 {path}` to prepare it")
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: is corrupt or incomplete ({error}); delete it to prepare the data again")
