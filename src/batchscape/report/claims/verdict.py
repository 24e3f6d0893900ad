"""From one number a seed to an interval, a verdict, and the seeds that it would take."""

from typing import Literal

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
POWER = 0.8
MOST_SEEDS = 1000

Direction = Literal["greater", "less"]


def t_interval(values: np.ndarray) -> tuple[float, float, float]:
    """Return the mean of paired differences, (n,), and the ends of its two-sided 95 % t interval.

    The ends are nan below two values, for one value has no spread; without spread both are the mean.
    """
    n = len(values)
    mean = float(np.mean(values)) if n else np.nan
    if n < 2:
        return mean, np.nan, np.nan
    half_width = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * np.std(values, ddof=1) / np.sqrt(n))
    return mean, mean - half_width, mean + half_width


def verdict(low: float, high: float, claimed: Direction) -> str:
    """Return what an interval around "no effect", 0, says: `supported` if all of it lies on the claimed side, `refuted`
    if all of it lies on the other one, else `undecided`."""
    below, above = high < 0, low > 0
    if not (below or above):
        return "undecided"
    return "supported" if above == (claimed == "greater") else "refuted"


def seeds_needed(values: np.ndarray) -> str:
    """Return how many seeds would decide, as text: a whole number, `more than 1000`, or `nan` below two values.

    It is the least number at which the interval excludes 0 with a probability (power) of 80 %, if the mean and the
    standard deviation of `values`, (n,), are the true ones: that of the paired t test, from the noncentral t
    distribution. The far tail, an interval on the wrong side, is negligible at that power.
    """
    if len(values) < 2:
        return "nan"
    mean, spread = abs(np.mean(values)), np.std(values, ddof=1)
    if mean == 0:
        return f"more than {MOST_SEEDS}"
    if spread == 0:
        return "2"
    n = np.arange(2, MOST_SEEDS + 1)
    power = stats.nct.sf(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1), n - 1, mean / spread * np.sqrt(n))
    enough = n[power >= POWER]
    return str(enough[0]) if len(enough) else f"more than {MOST_SEEDS}"
