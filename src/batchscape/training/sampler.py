"""Global batches, and everything else that an epoch draws, as pure functions of (seed, epoch)."""

from collections.abc import Callable, Iterator

import numpy as np
import torch

# What an epoch draws besides its order comes from streams of their own. Stream 0 would be that of the order: NumPy pads
# seeds with zeros.
AUGMENTATION, DROPOUT = 1, 2


def batch_sizes(count: int, batch_size: int) -> list[int]:
    """Return the size of each global batch of an epoch; the last one may be smaller.

    Args:
        count: Number of training examples.
        batch_size: Size of a global batch.

    Returns:
        The sizes, which sum to `count`.
    """
    return [min(batch_size, count - start) for start in range(0, count, batch_size)]


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """Return the order in which an epoch visits the training examples.

    Global batch b of size B is `order[b * B : (b + 1) * B]`; the last one may be smaller. The order depends on neither
    the batch size, nor the learning rate, nor the number of devices, so runs of one seed are paired.

    Args:
        count: Number of training examples.
        seed: Seed of the run.
        epoch: The epoch, from 1.

    Returns:
        A permutation of the indices of the examples, (count,), int64.
    """
    return np.random.default_rng([seed, epoch]).permutation(count)


def dropout_seed(seed: int, epoch: int, rank: int = 0) -> int:
    """Return the seed of torch's random numbers in an epoch.

    Each process has its own; otherwise all would drop the same units.

    Args:
        seed: Seed of the run.
        epoch: The epoch, from 1.
        rank: Rank of the process.

    Returns:
        A seed of 64 bits.
    """
    return int(np.random.SeedSequence([seed, epoch, DROPOUT, rank]).generate_state(1, np.uint64)[0])


class EpochSampler:
    """Loader whose single item is the order of an epoch: to Lightning, an epoch is one batch.

    Lightning's work around each of its batches takes a quarter of the time of a small network's step, so the module
    splits the order into global batches, and these into shards, itself.
    """

    def __init__(self, count: int, seed: int, epoch: Callable[[], int]):
        """Sample `count` examples; `epoch` returns the number of the epoch whose order comes next, from 1."""
        self.count = count
        self.seed = seed
        self.epoch = epoch

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[torch.Tensor]:
        yield torch.from_numpy(epoch_order(self.count, self.seed, self.epoch()))
