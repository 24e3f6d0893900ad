"""The order of examples and the seeds of a run, as pure functions of its seed and of the epoch or the step."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

# What a run draws besides its order comes from streams of their own. Stream 0 would be that of the order: NumPy pads
# seeds with zeros.
AUGMENTATION, DROPOUT = 1, 2
# Seeds of so many steps are drawn at once, which takes hardly longer than one.
SEED_BLOCK = 64


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


def dropout_seeds(seed: int, block: int, rank: int = 0) -> list[int]:
    """Return the seeds of torch's random numbers in consecutive steps.

    A step's seed depends on no other step, so that runs resume anywhere. Each process has its own; otherwise all would
    drop the same units.

    Args:
        seed: Seed of the run.
        block: The seeds are those of the steps `SEED_BLOCK * block`, …, `SEED_BLOCK * (block + 1) - 1`.
        rank: Rank of the process.

    Returns:
        `SEED_BLOCK` seeds of 64 bits.
    """
    return np.random.SeedSequence([seed, block, DROPOUT, rank]).generate_state(SEED_BLOCK, np.uint64).tolist()


class IntervalSampler:
    """Loader of the evaluation intervals of a run: to Lightning, an interval is an epoch of one batch.

    Lightning's work around each of its batches takes a quarter of the time of a small network's step, so the module
    splits an interval into global batches, and these into shards, itself.
    """

    def __init__(self, evaluations: Sequence[int], interval: Callable[[], int]):
        """Sample from the steps after which a run is evaluated; `interval` returns the interval's number, from 0."""
        self.evaluations = evaluations
        self.interval = interval

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[int]:
        """Yield the last step of the interval."""
        yield self.evaluations[self.interval()]
