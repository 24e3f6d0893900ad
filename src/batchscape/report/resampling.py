"""Intervals of statistics of all seeds, by leaving out one seed at a time."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from batchscape.report.claims.t_test import t_test


class Estimate(NamedTuple):
    """A statistic of all seeds with its 95 % confidence interval."""

    value: float
    ci95_low: float
    ci95_high: float

    def exp(self) -> "Estimate":
        """Return the estimate of a quantity whose logarithm was estimated."""
        with np.errstate(over="ignore"):
            return Estimate(*(float(np.exp(number)) for number in self))

    def without_ties(self) -> "Estimate":
        """Return the estimate without an interval if that has no width.

        Runs reach a target at an evaluation, and a best value may be one of those that were tried. If these are so far
        apart that no seed makes a difference, the seeds do not show how much the statistic varies.
        """
        return self._replace(ci95_low=np.nan, ci95_high=np.nan) if self.ci95_low == self.ci95_high else self


def estimate_over_seeds(statistic: Callable[[np.ndarray], np.ndarray], values: np.ndarray) -> list[Estimate]:
    """Estimate statistics with their intervals over seeds by the jackknife.

    All values of a seed are left out together, so whatever its runs share, such as initial weights, does not widen the
    interval of a comparison between them. With θ of all n seeds and θ₋ᵢ without seed i, the pseudo-values nθ − (n −
    1)θ₋ᵢ are treated as n independent values (Tukey 1958; Miller 1974): the interval has the width of their t interval,
    around θ. For a mean over seeds this is the t interval. `benchmarks/coverage.py` measures how often such intervals
    contain the true value.

    Args:
        statistic: Computes k statistics, shape (k,), from the values of some of the seeds.
        values: The values of each seed, shape (seeds, …).

    Returns:
        The k estimates. The interval is nan if there are fewer than two seeds or if the statistic is not finite. It is
        unbounded, −∞ to ∞, if the statistic is not finite without one of the seeds, that is, if that seed alone decides
        whether there is a value.
    """
    count = len(values)
    complete = np.asarray(statistic(values), dtype=float)
    if count < 2:
        return [Estimate(float(value), np.nan, np.nan) for value in complete]
    partial = np.array([statistic(np.delete(values, index, axis=0)) for index in range(count)], dtype=float)
    return [_estimate(float(value), without, count) for value, without in zip(complete, partial.T, strict=True)]


def _estimate(value: float, without: np.ndarray, count: int) -> Estimate:
    if not np.isfinite(value):
        return Estimate(value, np.nan, np.nan)
    if not np.isfinite(without).all():
        return Estimate(value, -np.inf, np.inf)
    # Rounded, so that rounding errors are not taken for differences between seeds that are equal.
    interval = t_test((count * value - (count - 1) * without).round(12))
    half = (interval.ci95_high - interval.ci95_low) / 2
    return Estimate(value, value - half, value + half)
