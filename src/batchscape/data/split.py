"""The split of a dataset into examples for training, validation and testing."""

from typing import Literal

import numpy as np

from batchscape.config.data.section import held_out_count
from batchscape.errors import UserError

# Numeric targets are stratified by tenths.
NUM_QUANTILES = 10


def split(
    count: int,
    validation_fraction: float,
    method: Literal["random", "first"],
    seed: int,
    test_fraction: float = 0.0,
    strata: np.ndarray | None = None,
    groups: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Divide examples into those for training, validation and testing.

    Which examples validate does not depend on `test_fraction`, except with `first` or small strata.

    Args:
        count: Number of examples.
        validation_fraction: Share of the examples that validate; 0: none.
        method: `random` draws the examples for validation and testing with the seed. `first` trains on the first
            examples, validates on those that follow, and tests on the last ones.
        seed: Seed.
        test_fraction: Share of the examples that test; 0: none.
        strata: (count,): with `random`, the share of each value is the same on all sides, up to one example (largest
            remainder); at least one example of each value trains.
        groups: (count,): all examples of a group are on one side. The shares are then those of the groups, in random
            or in their order, whose total is closest to the fractions.

    Returns:
        The sorted indices for training, validation and testing.

    Raises:
        UserError: A side that is asked for would be empty.
    """
    sizes = held_out_count(count, validation_fraction), held_out_count(count, test_fraction)
    fractions = (("validation_fraction", validation_fraction), ("test_fraction", test_fraction))
    for (key, fraction), size in zip(fractions, sizes, strict=True):
        if fraction and not 0 < size < count:
            raise UserError(
                f"data.{key}: {fraction:g} of {count:,} examples leaves one side of the split empty; choose a fraction "
                "such as 0.2"
            )
    if sum(sizes) >= count:
        raise UserError(
            f"data.test_fraction: {validation_fraction:g} for validation and {test_fraction:g} for testing leave none "
            f"of {count:,} examples for training; lower one of them"
        )
    if groups is not None:
        validation, test = _draw_groups(groups, sizes, method, seed)
    elif method == "first":
        rows = np.arange(count)
        validation, test = rows[count - sum(sizes) : count - sizes[1]], rows[count - sizes[1] :]
    else:
        order = np.random.default_rng(seed).permutation(count)
        if strata is None:
            validation, test = order[: sizes[0]], order[sizes[0] : sum(sizes)]
        else:
            validation, test = _draw_strata(order, strata, sizes)
    train = np.ones(count, bool)
    train[validation] = train[test] = False
    for key, part, size in (("validation_fraction", validation, sizes[0]), ("test_fraction", test, sizes[1])):
        if size and not len(part):
            raise UserError(f"data.{key}: no group or class is large enough to give examples to this side; raise it")
    if not train.any():
        raise UserError("data.validation_fraction: no group is left for training; lower it")
    return np.flatnonzero(train), np.sort(validation), np.sort(test)


def quantile_strata(values: np.ndarray) -> np.ndarray:
    """Return the tenth of the values, (n,), that each one is in, from 0; equal values are in the same one."""
    edges = np.quantile(values, np.arange(1, NUM_QUANTILES) / NUM_QUANTILES)
    return np.searchsorted(edges, values, side="right")


def _draw_strata(order: np.ndarray, strata: np.ndarray, sizes: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    codes, counts = np.unique(strata, return_inverse=True, return_counts=True)[1:]
    num_validation = _allocate(sizes[0], counts, counts - 1)
    num_test = _allocate(sizes[1], counts - num_validation, counts - num_validation - 1)
    by_stratum = order[np.argsort(codes[order], kind="stable")]
    rank = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    ends = np.repeat(num_validation, counts), np.repeat(num_validation + num_test, counts)
    return by_stratum[rank < ends[0]], by_stratum[(rank >= ends[0]) & (rank < ends[1])]


def _allocate(total: int, counts: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Return `total` divided in proportion to counts by the method of largest remainders, each at most its limit."""
    quotas = counts * (total / counts.sum())
    shares = np.minimum(np.floor(quotas).astype(np.int64), limits)
    by_remainder = np.argsort(-(quotas - shares), kind="stable")
    while shares.sum() < total and (shares < limits).any():
        with_room = by_remainder[shares[by_remainder] < limits[by_remainder]]
        shares[with_room[: total - shares.sum()]] += 1
    return shares


def _draw_groups(
    groups: np.ndarray, sizes: tuple[int, int], method: Literal["random", "first"], seed: int
) -> tuple[np.ndarray, np.ndarray]:
    _, first, codes, counts = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    if method == "first":  # from the last group backwards: first those that test
        order, sizes = np.argsort(-first), sizes[::-1]
    else:
        order = np.random.default_rng(seed).permutation(len(counts))
    drawn = []
    for size in sizes:
        totals = np.cumsum(counts[order])
        num_groups = int(np.argmin(abs(totals - size))) + 1 if size and len(order) else 0
        drawn.append(np.flatnonzero(np.isin(codes, order[:num_groups])))
        order = order[num_groups:]
    return (drawn[1], drawn[0]) if method == "first" else (drawn[0], drawn[1])
