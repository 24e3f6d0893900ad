"""Global batches as a pure function of (seed, epoch)."""

import numpy as np


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """Return the order, (count,) int64, in which epoch `epoch` (from 1) of a run with `seed` sees the examples.

    Global batch b of size B is `order[b·B:(b+1)·B]`; the last one may be shorter. The order depends on neither
    the batch size, nor the learning rate, nor the number of devices, so runs of one seed are paired.
    """
    return np.random.default_rng([seed, epoch]).permutation(count)
