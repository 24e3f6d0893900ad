"""Table `distance_log_fit`: logarithm and power law fitted to the distance from the initial weights, over seeds."""

import numpy as np
import pandas as pd
from scipy.optimize import least_squares

from batchscape.report.settings import SETTING_COLUMNS
from batchscape.report.tables.over_seeds import over_seeds

VALUES = [
    "log_intercept",
    "log_slope",
    "log_r2",
    "power_factor",
    "power_exponent",
    "power_r2",
    "r2_difference",
]


def fit(steps: np.ndarray, distances: np.ndarray) -> dict[str, float]:
    """Fit d(t) = a + b·ln t (ultra-slow diffusion, Hoffer et al. 2017, section 3) and d(t) = c·t^k to one run.

    Both fits have two parameters and minimize the squared error of the distance, with weight 1/t for each epoch, so
    that equal ranges of ln t have equal weight. Their R² can therefore be compared.

    Args:
        steps: Number of updates t by the end of each epoch, shape (epochs,).
        distances: ‖θ_t − θ_0‖ at the same epochs, shape (epochs,).

    Returns:
        a, b (distance for each e-fold of steps) and R² of the logarithm; c, k and R² of the power law; and the
        difference of the two R². All are nan for fewer than three epochs, if a distance is not finite and positive, and
        if all distances are the same, because R² is then undefined.
    """
    if len(steps) < 3 or not (np.isfinite(distances) & (distances > 0)).all() or np.ptp(distances) == 0:
        return dict.fromkeys(VALUES, np.nan)
    root = 1 / np.sqrt(steps)
    time = np.log(steps)
    design = np.stack([np.ones_like(time), time], axis=1)

    def line(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return np.linalg.lstsq(design * weights[:, None], values * weights, rcond=None)[0]

    def r2(fitted: np.ndarray) -> float:
        weights = root**2
        mean = np.average(distances, weights=weights)
        return float(1 - np.sum(weights * (distances - fitted) ** 2) / np.sum(weights * (distances - mean) ** 2))

    intercept, slope = line(distances, root)
    start = line(np.log(distances), root * distances)  # to first order, the errors of d itself
    power = least_squares(lambda p: root * (np.exp(design @ p) - distances), start, xtol=1e-12, ftol=1e-12).x
    log_r2, power_r2 = r2(design @ (intercept, slope)), r2(np.exp(design @ power))
    parameters = (intercept, slope, log_r2, np.exp(power[0]), power[1], power_r2, log_r2 - power_r2)
    return dict(zip(VALUES, map(float, parameters), strict=True))


def tabulate(history: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each setting: the parameters of the fits to its runs, over seeds."""
    runs = [
        {**dict(zip([*SETTING_COLUMNS, "seed", "status"], run, strict=True)), **_fit(rows)}
        for run, rows in history.groupby([*SETTING_COLUMNS, "seed", "status"])
    ]
    return over_seeds(pd.DataFrame(runs), SETTING_COLUMNS, VALUES)


def _fit(rows: pd.DataFrame) -> dict[str, float]:
    return fit(rows["step"].to_numpy(float), rows["distance"].to_numpy(float))
