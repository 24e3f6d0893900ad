"""Which images train and which validate."""

import numpy as np


def split(count: int, validation_fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the sorted indices of the training and of the validation images, a function of the arguments alone.

    The validation set has round(count · validation_fraction) images. Raises ValueError when either set is empty.
    """
    validation_count = round(count * validation_fraction)
    if not 0 < validation_count < count:
        raise ValueError(f"{validation_fraction:g} of {count} images leaves one side of the split empty")
    order = np.random.default_rng(seed).permutation(count)
    return np.sort(order[validation_count:]), np.sort(order[:validation_count])
