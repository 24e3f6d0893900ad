"""Global batches, and all else that an epoch draws, as pure functions of (seed, epoch)."""

import numpy as np

# What else an epoch draws has a stream of its own beside that of the order. 0 would be the order's: NumPy fills up
# with zeros.
AUGMENTATION, DROPOUT = 1, 2


def batch_sizes(count: int, batch_size: int) -> list[int]:
    """Return how many of an epoch's `count` examples each of its global batches has: the last one may be shorter."""
    return [min(batch_size, count - start) for start in range(0, count, batch_size)]


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """Return the order, (count,) int64, in which epoch `epoch` (from 1) of a run with `seed` sees the examples.

    Global batch b of size B is `order[b·B:(b+1)·B]`; the last one may be shorter. The order depends on neither
    the batch size, nor the learning rate, nor the number of devices, so runs of one seed are paired.
    """
    return np.random.default_rng([seed, epoch]).permutation(count)


def dropout_seed(seed: int, epoch: int, rank: int = 0) -> int:
    """Return the seed, of 64 bits, of torch's random numbers in epoch `epoch` (from 1) of a run with `seed`.

    Each of the processes that share a batch has its own, or they would drop the same of their examples.
    """
    return int(np.random.SeedSequence([seed, epoch, DROPOUT, rank]).generate_state(1, np.uint64)[0])
