"""Table `critical_batch`: the batch size above which larger batches save few steps."""

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar

from batchscape.report.resampling import Estimate, estimate_over_seeds
from batchscape.report.targets import TARGET_COLUMNS, mean_batch_sizes, runs_at_best_settings, split_by_target

# The critical batch size is searched up to this factor outside of the range of the tried batch sizes.
EXTRAPOLATION_FACTOR = 100.0
OVERHEAD = 1.2
"""How many times the steps of perfect scaling define the 20 % critical batch size."""

ESTIMATES = ("critical_batch", "min_steps", "min_examples", "critical_batch_20pct")


def fit(batch_sizes: np.ndarray, steps: np.ndarray) -> tuple[np.ndarray, str]:
    """Fit (S/S_min − 1)·(E/E_min − 1) = 1 to steps S and examples E = S·B (McCandlish et al. 2018, section 2).

    This is S = S_min·(1 + B_crit/B) with B_crit = E_min/S_min, fitted to log S by least squares.

    Args:
        batch_sizes: B of each run, shape (n,).
        steps: S of each run, shape (n,).

    Returns:
        The logarithms of B_crit, S_min and E_min, shape (3,); and the reason if there is no fit, else an empty string.
    """
    no_fit = np.full(3, np.nan)
    sizes = len(np.unique(batch_sizes))
    if sizes < 3:
        reached = f"only {sizes} batch size{'s' * (sizes != 1)}" if sizes else "no batch size"
        return no_fit, f"{reached} reached the target; three are needed"
    values = np.log(steps)

    def log_min_steps(log_critical: np.ndarray | float) -> np.ndarray:
        """Return S_min of each run, shape (…, n), for which it fits exactly."""
        return values - np.log1p(np.exp(np.asarray(log_critical)[..., None]) / batch_sizes)

    def cost(log_critical: np.ndarray | float) -> np.ndarray:
        return np.var(log_min_steps(log_critical), axis=-1)

    lowest, highest = batch_sizes.min() / EXTRAPOLATION_FACTOR, batch_sizes.max() * EXTRAPOLATION_FACTOR
    grid = np.log(np.geomspace(lowest, highest, 100))
    index = int(np.argmin(cost(grid)))
    if index == 0:
        return no_fit, "the steps do not fall as the batch size grows"
    if index == len(grid) - 1:
        return no_fit, "the steps fall in proportion to the batch size, or faster"
    bounds = (grid[index - 1], grid[index + 1])
    log_critical = minimize_scalar(cost, bounds=bounds, method="bounded", options={"xatol": 1e-10}).x
    log_steps = log_min_steps(log_critical).mean()
    return np.array([log_critical, log_steps, log_critical + log_steps]), ""


def find_overhead_batch(batch_sizes: np.ndarray, steps: np.ndarray) -> float:
    """Return the logarithm of the batch size that needs 1.2 times the steps of perfect scaling (Zhang et al. 2024).

    Perfect scaling starts from the smallest batch size: twice the batch size, half the steps. The logarithm of the
    ratio of the steps to it is interpolated linearly in the logarithm of the batch size.

    Args:
        batch_sizes: Ascending, shape (n,).
        steps: Mean steps of each, shape (n,).

    Returns:
        The first batch size at which the ratio exceeds 1.2; infinity if none of them does; nan if there are fewer than
        two.
    """
    if len(batch_sizes) < 2:
        return np.nan
    logs = np.log(batch_sizes)
    overhead = np.log(steps * batch_sizes / (steps[0] * batch_sizes[0])) - np.log(OVERHEAD)
    above = np.flatnonzero(overhead > 0)
    if not len(above):
        return np.inf
    index = above[0]
    share = overhead[index - 1] / (overhead[index - 1] - overhead[index])
    return float(logs[index - 1] + share * (logs[index] - logs[index - 1]))


def estimate(batch_sizes: np.ndarray, steps: np.ndarray) -> dict[str, Estimate]:
    """Return the estimates by name, with their intervals from leaving out seeds (`estimate_over_seeds`).

    Args:
        batch_sizes: Ascending, shape (n,).
        steps: Steps of each seed at the best setting of each batch size, shape (seeds, n); nan where the run did not
            reach the target. If these are equal, there are no intervals.
    """

    def statistics(steps: np.ndarray) -> np.ndarray:
        reached = ~np.isnan(steps)
        columns = reached.any(axis=0)
        fitted, _ = fit(np.broadcast_to(batch_sizes, steps.shape)[reached], steps[reached])
        means = np.exp(np.nanmean(np.log(steps[:, columns]), axis=0))
        return np.array([*fitted, find_overhead_batch(batch_sizes[columns], means)])

    estimates = estimate_over_seeds(statistics, steps)
    return {name: value.without_ties().exp() for name, value in zip(ESTIMATES, estimates, strict=True)}


def tabulate(runs_to_target: pd.DataFrame, steps_to_target: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each target: the fit to all runs at the best setting of each batch size for it.

    B is the mean size of the batches of an epoch, whose last one may be smaller, so that E = S·B holds. Intervals come
    from leaving out seeds, whose runs are paired; the settings are those that are best for all seeds.
    """
    # By order: the value of a target may be nan.
    parts = zip(split_by_target(runs_to_target), split_by_target(steps_to_target), strict=True)
    return pd.DataFrame([_fit_target(runs, settings) for runs, settings in parts])


def _fit_target(runs_to_target: pd.DataFrame, steps_to_target: pd.DataFrame) -> dict[str, object]:
    best = steps_to_target[steps_to_target["is_best"] == 1]
    runs = runs_at_best_settings(runs_to_target, steps_to_target)
    steps = runs.pivot(index="seed", columns="batch_size", values="steps")
    sizes = mean_batch_sizes(runs).to_numpy()
    values = steps.to_numpy(dtype=float)
    estimates, reached = estimate(sizes, values), ~np.isnan(values)
    _, reason = fit(np.broadcast_to(sizes, values.shape)[reached], values[reached])
    low, high = runs["batch_size"].min(), runs["batch_size"].max()
    row: dict[str, object] = {column: steps_to_target[column].iloc[0] for column in TARGET_COLUMNS}
    for name, (value, lower, upper) in estimates.items():
        row |= {name: value, f"{name}_ci95_low": lower, f"{name}_ci95_high": upper}
    row["min_epochs"] = estimates["min_examples"].value * (runs["epochs"] / runs["examples"]).mean()
    return {
        **row,
        "smallest_batch_size": low,
        "largest_batch_size": high,
        "n_batch_sizes": runs["batch_size"].nunique(),
        "n_runs": len(runs),
        "n_missed": int(best["n_missed"].sum()),
        "n_diverged": int(best["n_diverged"].sum()),
        "n_at_first_evaluation": int(runs["evaluations"].eq(1).sum()),
        "n_on_edge": int(best["edge"].ne("none").sum()),
        "verdict": "not identified" if reason else "inside" if low <= row["critical_batch"] <= high else "outside",
        "reason": reason or "none",
    }
