"""Which images train and which validate."""

import numpy as np

from batchscape.config.data import validation_count


def split(count: int, validation_fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the sorted indices of the training and of the validation images, a function of the arguments alone.

    Raises ValueError when either set is empty.
    """
    held_out = validation_count(count, validation_fraction)
    if not 0 < held_out < count:
        raise ValueError(f"{validation_fraction:g} of {count} images leaves one side of the split empty")
    order = np.random.default_rng(seed).permutation(count)
    return np.sort(order[held_out:]), np.sort(order[:held_out])
