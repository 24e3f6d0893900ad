"""The paired t test, and the test of equivalence."""

from typing import NamedTuple

import numpy as np
from scipy import stats
from statsmodels.stats.weightstats import DescrStatsW

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


def equivalence_p_value(differences: np.ndarray, margin: float) -> float:
    """Return the p-value of "the mean of paired differences is not between -margin and margin".

    These are two one-sided t tests (Schuirmann 1987); the larger of their p-values counts.

    Args:
        differences: One difference per pair, shape (n,).
        margin: The largest difference that does not matter, above 0, in the unit of the differences.

    Returns:
        The p-value; below 0.05, the mean is within the margin with an error of at most 5 %. With fewer than two values
        it is nan. If all values are the same, it is 0 within the margin and 1 outside.
    """
    if len(differences) < 2:
        return np.nan
    if np.ptp(differences) == 0:
        return float(abs(differences[0]) >= margin)
    return float(DescrStatsW(differences).ttost_mean(-margin, margin)[0])


def beyond_p_value(differences: np.ndarray, margin: float) -> float:
    """Return the p-value of "the mean of paired differences is between -margin and margin".

    This is the two-sided t test of the end of the margin that the mean is beyond, so it is below 0.05 where the 95 %
    interval is outside of the margin.

    Args:
        differences: One difference per pair, shape (n,).
        margin: The largest difference that does not matter, above 0, in the unit of the differences.

    Returns:
        The p-value; 1 if the mean is within the margin, nan with fewer than two values.
    """
    if len(differences) < 2:
        return np.nan
    mean = float(np.mean(differences))
    return t_test(differences - np.copysign(margin, mean)).p_value if abs(mean) > margin else 1.0
