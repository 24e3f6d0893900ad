"""Table `regimes`: whether a larger batch saves steps, from each batch size to the next."""

from itertools import pairwise

import numpy as np
import pandas as pd

from batchscape.report.resampling import Estimate, estimate_over_seeds
from batchscape.report.targets import TARGET_COLUMNS, mean_batch_sizes, runs_at_best_settings, split_by_target

COLUMNS = [
    *TARGET_COLUMNS,
    *("batch_size", "larger_batch_size", "learning_rate", "larger_learning_rate"),
    *("steps_ratio", "ci95_low", "ci95_high", "regime", "reason"),
    *("n_seeds", "n_at_first_evaluation", "n_on_edge"),
]
SAME_SIZE = 0.01
"""Doublings between two mean batch sizes below which they count as the same."""
PERFECT, NO_SAVING = 0.5, 1.0
"""The factor of the steps for a doubling of the batch size: under perfect scaling, and if no steps are saved."""


def tabulate(runs_to_target: pd.DataFrame, steps_to_target: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each target and pair of neighboring batch sizes, each at its best setting for the target.

    `steps_ratio` is the factor of the steps for a doubling of the batch size, that is of the mean size of the batches
    of an epoch, whose last one may be smaller; its interval is paired by seed. The regimes are those of Shallue et al.
    2019: `perfect scaling` if the interval reaches down to 1/2 and not up to 1, `maximal parallelism` if it reaches up
    to 1 and not down to 1/2, `diminishing returns` if it is between them, `not determined` if it contains both, if
    there is none, or if a run reached the target at its first evaluation, so that its steps are only an upper bound.
    """
    # By order: the value of a target may be nan.
    parts = zip(split_by_target(runs_to_target), split_by_target(steps_to_target), strict=True)
    rows = [row for runs, settings in parts for row in _compare_neighbors(runs, settings)]
    return pd.DataFrame(rows, columns=COLUMNS)


def ratio_per_doubling(runs: pd.DataFrame, quantity: str, batch_size: int, larger: int) -> tuple[Estimate, int]:
    """Return the factor of a quantity for a doubling of the batch size, paired by seed, and the number of pairs.

    The batch sizes are the mean ones of an epoch, as in `critical_batch`: epochs that take equally long to the target
    are perfect scaling, also if their last batches are smaller.

    Args:
        runs: One run of each batch size and seed, with the columns batch_size, seed, steps, examples and `quantity`.
        quantity: The name of a column with positive values.
        batch_size: The smaller batch size.
        larger: The larger one.

    Returns:
        The factor, nan if both mean sizes are the same and without an interval if that of all seeds is the same; and
        the number of pairs.
    """
    pairs = np.log(runs.pivot(index="seed", columns="batch_size", values=quantity)[[batch_size, larger]].dropna())
    sizes = mean_batch_sizes(runs)
    doublings = np.log2(sizes[larger] / sizes[batch_size])
    if pairs.empty or doublings < SAME_SIZE:
        return Estimate(np.nan, np.nan, np.nan), len(pairs)
    slopes = (pairs[larger] - pairs[batch_size]).to_numpy() / doublings
    estimate = estimate_over_seeds(lambda values: np.array([values.mean()]), slopes)[0]
    return estimate.without_ties().exp(), len(slopes)


def judge(interval: Estimate) -> str:
    """Return the regime of an interval of the factor of the steps for a doubling of the batch size."""
    if np.isnan(interval.ci95_low):
        return "not determined"
    halves, saves_none = interval.ci95_low <= PERFECT, interval.ci95_high >= NO_SAVING
    if halves and saves_none:
        return "not determined"
    return "perfect scaling" if halves else "maximal parallelism" if saves_none else "diminishing returns"


def _compare_neighbors(runs_to_target: pd.DataFrame, steps_to_target: pd.DataFrame) -> list[dict[str, object]]:
    best = steps_to_target[steps_to_target["is_best"] == 1].set_index("batch_size")
    runs = runs_at_best_settings(runs_to_target, steps_to_target)
    sizes = sorted(best.index)
    rows = []
    for size, larger in pairwise(sizes):
        ratio, n_seeds = ratio_per_doubling(runs, "steps", size, larger)
        pair = runs["batch_size"].isin([size, larger])
        n_first = int(runs.loc[pair, "evaluations"].eq(1).sum())
        regime = "not determined" if n_first else judge(ratio)
        rows.append(
            {
                **{column: steps_to_target[column].iloc[0] for column in TARGET_COLUMNS},
                "batch_size": size,
                "larger_batch_size": larger,
                "learning_rate": best.at[size, "learning_rate"],
                "larger_learning_rate": best.at[larger, "learning_rate"],
                "steps_ratio": ratio.value,
                "ci95_low": ratio.ci95_low,
                "ci95_high": ratio.ci95_high,
                "regime": regime,
                "reason": _explain(ratio, n_first, n_seeds, regime),
                "n_seeds": n_seeds,
                "n_at_first_evaluation": n_first,
                "n_on_edge": int(best.loc[[size, larger], "edge"].ne("none").sum()),
            }
        )
    return rows


def _explain(ratio: Estimate, n_first: int, n_seeds: int, regime: str) -> str:
    if regime != "not determined":
        is_better = ratio.ci95_high < PERFECT
        return (
            "better than perfect: the rate of the smaller batch size is probably not its best" if is_better else "none"
        )
    if n_first:
        runs = "1 run" if n_first == 1 else f"{n_first} runs"
        return f"{runs} reached the target at the first evaluation, so the steps are upper bounds"
    if n_seeds < 2:
        return "fewer than two seeds reached the target with both batch sizes"
    if np.isnan(ratio.value):
        return "both have the same mean size, because the last batch of an epoch is smaller"
    if np.isnan(ratio.ci95_low):
        return "all seeds take the same numbers of steps, so there is no interval; evaluate more often"
    return "the interval contains both 1/2 and 1"
