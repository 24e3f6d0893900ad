"""Table `critical_batch`: the batch size above which larger batches save few steps."""

import numpy as np
import pandas as pd
from scipy import stats
from scipy.optimize import least_squares

from batchscape.report.targets import TARGET_COLUMNS, split_by_target

# The critical batch size is searched up to this factor outside of the range of the tried batch sizes.
EXTRAPOLATION_FACTOR = 100.0
Interval = tuple[float, float, float]
"""Estimate, and lower and upper end of its 95 % interval."""

ESTIMATES = ("critical_batch", "min_steps", "min_examples")


def fit(batch_sizes: np.ndarray, steps: np.ndarray) -> tuple[dict[str, Interval], str]:
    """Fit (S/S_min − 1)·(E/E_min − 1) = 1 to steps S and examples E = S·B (McCandlish et al. 2018, section 2).

    This is S = S_min·(1 + B_crit/B) with B_crit = E_min/S_min, fitted to log S by least squares.

    Args:
        batch_sizes: B of each run, shape (n,).
        steps: S of each run, shape (n,).

    Returns:
        B_crit, S_min and E_min by name, each as estimate and ends of its 95 % interval (Student's t with n − 2 degrees
        of freedom on the covariance of the logarithms, for independent runs); and the reason if there is no fit, else
        an empty string.
    """
    no_fit = dict.fromkeys(ESTIMATES, (np.nan, np.nan, np.nan))
    sizes = len(np.unique(batch_sizes))
    if sizes < 3:
        reached = f"only {sizes} batch size{'s' * (sizes != 1)}" if sizes else "no batch size"
        return no_fit, f"{reached} reached the target; three are needed"
    values = np.log(steps)

    def residuals(logs: np.ndarray) -> np.ndarray:
        return values - logs[0] - np.log1p(np.exp(logs[1]) / batch_sizes)

    def cost(log_critical: float) -> float:
        centered = residuals(np.array([0.0, log_critical]))
        return float(np.sum((centered - centered.mean()) ** 2))

    lowest, highest = batch_sizes.min() / EXTRAPOLATION_FACTOR, batch_sizes.max() * EXTRAPOLATION_FACTOR
    grid = np.log(np.geomspace(lowest, highest, 400))
    index = int(np.argmin([cost(log_critical) for log_critical in grid]))
    if index == 0:
        return no_fit, "the steps do not fall as the batch size grows"
    if index == len(grid) - 1:
        return no_fit, "the steps fall in proportion to the batch size, or faster"
    start = residuals(np.array([0.0, grid[index]])).mean()
    fitted = least_squares(residuals, [start, grid[index]], xtol=1e-12, ftol=1e-12, gtol=1e-12)
    covariance = np.linalg.inv(fitted.jac.T @ fitted.jac) * 2 * fitted.cost / (len(values) - 2)
    quantile = stats.t.ppf(0.975, len(values) - 2)
    weights = {"critical_batch": (0.0, 1.0), "min_steps": (1.0, 0.0), "min_examples": (1.0, 1.0)}
    result: dict[str, Interval] = {}
    for name, weight in weights.items():
        center, half = np.dot(weight, fitted.x), quantile * np.sqrt(np.dot(weight, covariance @ weight))
        with np.errstate(over="ignore"):  # an unbounded interval
            result[name] = (float(np.exp(center)), float(np.exp(center - half)), float(np.exp(center + half)))
    return result, ""


def tabulate(runs_to_target: pd.DataFrame, steps_to_target: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each target: the fit to all runs at the best setting of each batch size for it.

    B is the mean size of the batches of an epoch, whose last one may be smaller, so that E = S·B holds.
    """
    # By order: the value of a target may be nan.
    parts = zip(split_by_target(runs_to_target), split_by_target(steps_to_target), strict=True)
    return pd.DataFrame([_fit_target(runs, settings) for runs, settings in parts])


def _fit_target(runs_to_target: pd.DataFrame, steps_to_target: pd.DataFrame) -> dict[str, object]:
    best = steps_to_target[steps_to_target["is_best"] == 1]
    runs = runs_to_target[runs_to_target["setting"].isin(best["setting"]) & runs_to_target["status"].ne("diverged")]
    runs = runs.dropna(subset=["steps"])
    estimates, reason = fit((runs["examples"] / runs["steps"]).to_numpy(), runs["steps"].to_numpy())
    low, high = runs["batch_size"].min(), runs["batch_size"].max()
    critical = estimates["critical_batch"][0]
    row: dict[str, object] = {column: steps_to_target[column].iloc[0] for column in TARGET_COLUMNS}
    for name, (estimate, lower, upper) in estimates.items():
        row |= {name: estimate, f"{name}_ci95_low": lower, f"{name}_ci95_high": upper}
    row["min_epochs"] = estimates["min_examples"][0] * (runs["epochs"] / runs["examples"]).mean()
    return {
        **row,
        "smallest_batch_size": low,
        "largest_batch_size": high,
        "n_batch_sizes": runs["batch_size"].nunique(),
        "n_runs": len(runs),
        "n_missed": int(best["n_missed"].sum()),
        "n_diverged": int(best["n_diverged"].sum()),
        "n_on_edge": int(best["edge"].ne("none").sum()),
        "verdict": "not identified" if reason else "inside" if low <= critical <= high else "outside",
        "reason": reason or "none",
    }
