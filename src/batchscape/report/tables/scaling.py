"""Table `scaling`: by which power the best learning rate, and each searched hyperparameter, follows the batch size."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from batchscape.report.optimum import Optimum, choose_window, find_optimum, fit_vertex, mean_over_seeds
from batchscape.report.resampling import Estimate, estimate_over_seeds
from batchscape.report.settings import constant_lr_settings

LOSS = "best_validation_loss"
HYPERPARAMETERS = ("learning_rate", "momentum", "weight_decay", "beta2", "warmup")
RULES = {"linear": 1.0, "square-root": 0.5}
"""The exponents of the rules that a verdict names."""

ONE_MINUS = ("momentum", "beta2")
"""Hyperparameters x of which 1 − x follows a power of the batch size."""
NO_ESTIMATE = Estimate(np.nan, np.nan, np.nan)


class Losses(NamedTuple):
    """The losses from which the best value of a hyperparameter is found at each batch size.

    Attributes:
        values: Shape (seeds, columns): inf for a run that diverged, nan for one that does not exist.
        batch_sizes: That of each column.
        positions: Logarithm of the hyperparameter of each column, ascending within a batch size.
        interpolate: Whether the loss is a function of this hyperparameter alone.
    """

    values: np.ndarray
    batch_sizes: np.ndarray
    positions: np.ndarray
    interpolate: bool = True


def tabulate(runs: pd.DataFrame, trial_runs: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return the exponent of each hyperparameter over the batch size, of the grid and of the search.

    The exponent is the slope of log(best value) over log(batch size) by least squares. The best value of a batch size
    is the vertex of a parabola (`find_optimum`) in the mean loss over seeds; if a search varies several hyperparameters
    together, it is that of the trial with the lowest mean loss. The interval comes from leaving out seeds
    (`estimate_over_seeds`): the trial is selected and the parabola fitted again, to the same values. Batch sizes whose
    best value is on the edge of the tried ones are left out, because it is a bound. `verdict` is `linear` or
    `square-root` if the interval contains 1 or 0.5 and lies within 0.5 of it, so that neither the other rule nor a
    constant rate (0) is possible; `neither` if it contains none of them; else `not determined`.

    The best rate may rise and fall again (Li et al. 2024): `rises_and_falls` is `yes` if the interval of the exponent
    from the smallest to the next batch size is above 0 and that from the last but one to the largest is below 0, `no`
    if one of them is on the other side of 0, else `not determined`.

    Args:
        runs: The table `runs`; the row with source `grid` is about its constant learning rates.
        trial_runs: One row for each trial and seed of the search, with the columns batch_size, trial, seed,
            validation_loss, status and those of the searched hyperparameters. Trials with a run that was pruned are
            left out, and so is the stage `finalist`, which trains for longer. None if there is no search.
    """
    rows = [_row("grid", "learning_rate", losses_of_grid(runs))]
    if trial_runs is not None:
        searched = [name for name in HYPERPARAMETERS if name in trial_runs]
        rows += [_row("search", name, _losses_of_search(trial_runs, name, searched)) for name in searched]
    return pd.DataFrame(rows)


def losses_of_grid(runs: pd.DataFrame) -> Losses:
    """Return the losses of the constant learning rates of all batch sizes."""
    grid = constant_lr_settings(runs)
    losses = grid[LOSS].mask(grid["status"].eq("diverged"), np.inf)
    return _arrange(grid.assign(loss=losses, position=np.log(grid["learning_rate"])), "position")


def sizes_with_optimum(losses: Losses) -> list[int]:
    """Return the batch sizes whose best value is not on an edge of the tried ones, ascending."""
    sizes = dict.fromkeys(losses.batch_sizes.tolist())
    return [size for size in sizes if _find(losses, size).is_inside]


def estimate_exponents(losses: Losses, sizes: Sequence[int]) -> list[Estimate]:
    """Return the exponents over all of some batch sizes, from the first to the second, and over the last two.

    There is no interval if the best values are tried ones, and the same without any of the seeds.
    """
    logs = np.log(np.asarray(sizes, dtype=float))
    columns = [np.flatnonzero(losses.batch_sizes == size) for size in sizes]
    if losses.interpolate:
        # Chosen once: a window that moves with each seed that is left out makes the intervals of many seeds too wide.
        columns = [
            indices[choose_window(losses.positions[indices], mean_over_seeds(losses.values[:, indices]))]
            for indices in columns
        ]

    def best_position(values: np.ndarray, indices: np.ndarray) -> float:
        positions, means = losses.positions[indices], mean_over_seeds(values[:, indices])
        if losses.interpolate:
            return fit_vertex(positions, means)
        return float(positions[np.nanargmin(means)]) if np.isfinite(means).any() else np.nan

    def exponents(values: np.ndarray) -> np.ndarray:
        best = np.array([best_position(values, indices) for indices in columns])
        steps = np.diff(best) / np.diff(logs)
        slope = np.polyfit(logs, best, 1)[0] if np.isfinite(best).all() else np.nan
        return np.array([slope, steps[0], steps[-1]])

    return [estimate.without_ties() for estimate in estimate_over_seeds(exponents, losses.values)]


def judge(interval: Estimate) -> str:
    """Return the rule of which an interval of the exponent lies within 0.5, or that it contains none."""
    low, high = interval.ci95_low, interval.ci95_high
    possible = {name: power for name, power in RULES.items() if low <= power <= high}
    if not possible and not np.isnan(low):
        return "neither"
    for name, power in possible.items():
        if power - 0.5 < low and high < power + 0.5:
            return name
    return "not determined"


def _losses_of_search(trial_runs: pd.DataFrame, name: str, searched: Sequence[str]) -> Losses:
    rows = trial_runs[trial_runs["stage"] != "finalist"] if "stage" in trial_runs else trial_runs
    complete = rows["status"].isin(["completed", "diverged"])
    rows = rows[complete.groupby([rows["batch_size"], rows["trial"]]).transform("all")]
    value = 1 - rows[name] if name in ONE_MINUS else rows[name]
    rows = rows.assign(loss=rows["validation_loss"], position=np.log(value))
    is_alone = len(searched) == 1
    return _arrange(rows, "position" if is_alone else "trial")._replace(interpolate=is_alone)


def _arrange(rows: pd.DataFrame, column: str) -> Losses:
    """Arrange losses with a column for each batch size and value of `column`."""
    keys = ["batch_size", column]
    wide = rows.pivot_table(index="seed", columns=keys, values="loss")
    positions = rows.groupby(keys)["position"].first().loc[list(wide.columns)]
    order = np.lexsort([positions.to_numpy(), positions.index.get_level_values("batch_size")])
    sizes = positions.index.get_level_values("batch_size").to_numpy()
    return Losses(wide.to_numpy(dtype=float)[:, order], sizes[order], positions.to_numpy()[order])


def _find(losses: Losses, batch_size: int) -> Optimum:
    """Return the best position of a batch size."""
    columns = losses.batch_sizes == batch_size
    positions, means = losses.positions[columns], mean_over_seeds(losses.values[:, columns])
    if losses.interpolate:
        return find_optimum(positions, means)
    if not np.isfinite(means).any():
        return Optimum(np.nan, False)
    best = float(positions[np.nanargmin(means)])
    return Optimum(best, bool(positions.min() < best < positions.max()))


def _row(source: str, name: str, losses: Losses) -> dict[str, object]:
    all_sizes = list(dict.fromkeys(losses.batch_sizes.tolist()))
    sizes = sizes_with_optimum(losses)
    n_seeds = len(losses.values)
    exponent = first = last = NO_ESTIMATE
    if len(sizes) > 1:
        exponent, first, last = estimate_exponents(losses, sizes)
    verdict = judge(exponent)
    row: dict[str, object] = {"source": source, "hyperparameter": name}
    for prefix, estimate in (("", exponent), ("first_", first), ("last_", last)):
        row |= {
            f"{prefix}exponent": estimate.value,
            f"{prefix}ci95_low": estimate.ci95_low,
            f"{prefix}ci95_high": estimate.ci95_high,
        }
    return {
        **row,
        "verdict": verdict,
        "rises_and_falls": _judge_fall(first, last) if len(sizes) > 2 else "not determined",
        "smallest_batch_size": min(sizes, default=np.nan),
        "largest_batch_size": max(sizes, default=np.nan),
        "n_batch_sizes": len(sizes),
        "n_on_edge": len(all_sizes) - len(sizes),
        "n_seeds": n_seeds,
        "reason": _explain(exponent, len(sizes), len(all_sizes), n_seeds) if verdict == "not determined" else "none",
    }


def _judge_fall(first: Estimate, last: Estimate) -> str:
    if first.ci95_low > 0 and last.ci95_high < 0:
        return "yes"
    return "no" if first.ci95_high < 0 or last.ci95_low > 0 else "not determined"


def _explain(interval: Estimate, n_inside: int, n_sizes: int, n_seeds: int) -> str:
    if n_inside < 2:
        return (
            f"the best value of {n_sizes - n_inside} of {n_sizes} batch sizes is on an edge of the tried values"
            if n_sizes > 1
            else "there are no two batch sizes to compare"
        )
    if n_seeds < 2:
        return "one seed gives no interval"
    if np.isnan(interval.ci95_low):
        return "no seed makes a difference, so there is no interval; try more rates between the others"
    if interval.ci95_low <= RULES["square-root"] and interval.ci95_high >= RULES["linear"]:
        return "the interval contains both 1 and 0.5"
    return "the interval is too wide"
