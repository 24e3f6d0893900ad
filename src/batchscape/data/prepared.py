"""The prepared data of a study: one safetensors file that all of its jobs map read-only."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from batchscape.errors import UserError
from batchscape.files import write_bytes

PARTS = ("train_images", "train_labels", "validation_images", "validation_labels")


@dataclass(frozen=True)
class PreparedData:
    """Images, (n, channels, height, width) uint8, and labels, (n,) int64, of both sides of the split."""

    train_images: np.ndarray
    train_labels: np.ndarray
    validation_images: np.ndarray
    validation_labels: np.ndarray


def write_prepared(path: Path, data: PreparedData) -> None:
    arrays = {part: np.ascontiguousarray(getattr(data, part)) for part in PARTS}
    write_bytes(path, save(arrays))


def read_prepared(path: Path) -> PreparedData:
    """Read what `write_prepared` wrote. Raises UserError when the file is missing or damaged."""
    try:
        with safe_open(path, framework="numpy") as file:
            return PreparedData(**{part: file.get_tensor(part) for part in PARTS})
    except FileNotFoundError:
        raise UserError(f"{path}: there is no prepared data; run `snakemake --cores 1 {path}` to make it")
    except SafetensorError as error:
        raise UserError(f"{path}: is no whole prepared data file ({error}); delete it so that it is made again")
