"""The critical batch size: from which one on larger batches save few steps."""

import numpy as np
import pandas as pd
from scipy import stats
from scipy.optimize import least_squares

# The critical batch is sought up to so many times beyond the batch sizes that were tried.
BEYOND = 100.0
ESTIMATES = ("critical_batch", "min_steps", "min_examples")


def fit(batch_sizes: np.ndarray, steps: np.ndarray) -> tuple[dict[str, tuple[float, float, float]], str]:
    """Fit (S/S_min − 1)·(E/E_min − 1) = 1 to the steps S, (n,), that runs with batches of B examples, (n,), took.

    As in McCandlish et al. 2018, section 2, with E = S·B examples. That is S = S_min·(1 + B_crit/B) with
    B_crit = E_min/S_min, and it is fitted to log S by least squares. Return B_crit, S_min and E_min, each as estimate
    and 95 % interval (Student's t with n − 2 degrees of freedom on the logarithms' covariance; it takes runs to be
    independent), and why there is no fit: an empty text if there is one.
    """
    nothing = dict.fromkeys(ESTIMATES, (np.nan, np.nan, np.nan))
    sizes = len(np.unique(batch_sizes))
    if sizes < 3:
        found = f"only {sizes} batch size{'s' * (sizes != 1)}" if sizes else "no batch size"
        return nothing, f"{found} reached the target; three are needed"
    values = np.log(steps)

    def residuals(logs: np.ndarray) -> np.ndarray:
        return values - logs[0] - np.log1p(np.exp(logs[1]) / batch_sizes)

    def cost(log_critical: float) -> float:
        rest = residuals(np.array([0.0, log_critical]))
        return float(np.sum((rest - rest.mean()) ** 2))

    tried = np.log(np.geomspace(batch_sizes.min() / BEYOND, batch_sizes.max() * BEYOND, 400))
    place = int(np.argmin([cost(log_critical) for log_critical in tried]))
    if place == 0:
        return nothing, "the steps do not fall as the batch size grows"
    if place == len(tried) - 1:
        return nothing, "the steps fall in proportion to the batch size, or faster"
    start = residuals(np.array([0.0, tried[place]])).mean()
    found = least_squares(residuals, [start, tried[place]], xtol=1e-12, ftol=1e-12, gtol=1e-12)
    covariance = np.linalg.inv(found.jac.T @ found.jac) * 2 * found.cost / (len(values) - 2)
    quantile = stats.t.ppf(0.975, len(values) - 2)
    weights = {"critical_batch": (0.0, 1.0), "min_steps": (1.0, 0.0), "min_examples": (1.0, 1.0)}
    result = {}
    for name, weight in weights.items():
        center, half = np.dot(weight, found.x), quantile * np.sqrt(np.dot(weight, covariance @ weight))
        with np.errstate(over="ignore"):  # an interval without an end
            result[name] = tuple(float(np.exp(log)) for log in (center, center - half, center + half))
    return result, ""


def tabulate(runs_to_target: pd.DataFrame, steps_to_target: pd.DataFrame) -> pd.DataFrame:
    """Return one row: the fit to all runs at the learning rate that is best for the target, batch size by batch size.

    B is the mean size of the batches of an epoch, of which the last may be shorter, so that E = S·B holds.
    """
    best = steps_to_target[steps_to_target["is_best"] == 1]
    runs = runs_to_target[runs_to_target["setting"].isin(best["setting"]) & runs_to_target["status"].ne("diverged")]
    runs = runs.dropna(subset=["steps"])
    found, reason = fit((runs["examples"] / runs["steps"]).to_numpy(), runs["steps"].to_numpy())
    low, high = runs["batch_size"].min(), runs["batch_size"].max()
    critical = found["critical_batch"][0]
    row: dict[str, object] = {"target_loss": steps_to_target["target_loss"].iloc[0]}
    for name, (estimate, lower, upper) in found.items():
        row |= {name: estimate, f"{name}_ci95_low": lower, f"{name}_ci95_high": upper}
    row["min_epochs"] = found["min_examples"][0] * (runs["epochs"] / runs["examples"]).mean()
    return pd.DataFrame(
        [
            {
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
        ]
    )
