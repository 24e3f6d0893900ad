"""Which images train and which validate."""

from typing import Literal

import numpy as np

from batchscape.config.data import validation_count

TRAIN, VALIDATION, TEST = SIDES = ("train", "validation", "test")


def split(
    count: int, validation_fraction: float, how: Literal["random", "first"], seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the sorted indices of the training and of the validation images, a function of the arguments alone.

    `random` draws them with the seed; `first` trains on the first images. Raises ValueError when either set is empty.
    """
    held_out = validation_count(count, validation_fraction)
    if not 0 < held_out < count:
        raise ValueError(f"{validation_fraction:g} of {count} images leaves one side of the split empty")
    if how == "first":
        return np.arange(count - held_out), np.arange(count - held_out, count)
    order = np.random.default_rng(seed).permutation(count)
    return np.sort(order[held_out:]), np.sort(order[:held_out])
