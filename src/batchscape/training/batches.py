"""Global batches, and all else that an epoch draws, as pure functions of (seed, epoch)."""

import numpy as np

# What else an epoch draws has a stream of its own beside that of the order. 0 would be the order's: NumPy fills up
# with zeros.
AUGMENTATION, DROPOUT = 1, 2


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """Return the order, (count,) int64, in which epoch `epoch` (from 1) of a run with `seed` sees the examples.

    Global batch b of size B is `order[b·B:(b+1)·B]`; the last one may be shorter. The order depends on neither
    the batch size, nor the learning rate, nor the number of devices, so runs of one seed are paired.
    """
    return np.random.default_rng([seed, epoch]).permutation(count)


def dropout_seed(seed: int, epoch: int) -> int:
    """Return the seed, of 64 bits, of torch's random numbers in epoch `epoch` (from 1) of a run with `seed`."""
    return int(np.random.SeedSequence([seed, epoch, DROPOUT]).generate_state(1, np.uint64)[0])
