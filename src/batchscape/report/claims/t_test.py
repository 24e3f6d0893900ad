"""The paired t test."""

from typing import NamedTuple

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


class TTest(NamedTuple):
    """Mean of paired differences, its 95 % confidence interval, and the two-sided p-value of "the mean is 0"."""

    mean: float
    ci95_low: float
    ci95_high: float
    p_value: float


def t_test(differences: np.ndarray) -> TTest:
    """Test whether the mean of paired differences is 0.

    Args:
        differences: One difference per pair, shape (n,).

    Returns:
        The result. With fewer than two values, interval and p-value are nan. If all values are the same, the interval
        is that value; the p-value is 0, or 1 if the value is 0.
    """
    mean = float(np.mean(differences)) if len(differences) else np.nan
    if len(differences) < 2:
        return TTest(mean, np.nan, np.nan, np.nan)
    if np.ptp(differences) == 0:
        return TTest(mean, mean, mean, float(mean == 0))
    result = stats.ttest_1samp(differences, 0)
    interval = result.confidence_interval(CONFIDENCE)
    return TTest(mean, float(interval.low), float(interval.high), float(result.pvalue))
