"""The split of a dataset into training and validation images."""

from typing import Literal

import numpy as np

from batchscape.config.data import validation_count

TRAIN, VALIDATION, TEST = SIDES = ("train", "validation", "test")


def split(
    count: int, validation_fraction: float, method: Literal["random", "first"], seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the sorted indices of the training and of the validation images.

    `random` draws the validation images with the seed; `first` trains on the first images. Raises ValueError if
    either side would be empty.
    """
    num_validation = validation_count(count, validation_fraction)
    if not 0 < num_validation < count:
        raise ValueError(f"{validation_fraction:g} of {count} images leaves one side of the split empty")
    if method == "first":
        return np.arange(count - num_validation), np.arange(count - num_validation, count)
    order = np.random.default_rng(seed).permutation(count)
    return np.sort(order[num_validation:]), np.sort(order[:num_validation])
