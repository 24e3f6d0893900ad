"""Intervals by leaving out seeds."""

import numpy as np
import pytest
from scipy import stats

from batchscape.report.resampling import Estimate, estimate_over_seeds


def mean(values: np.ndarray) -> np.ndarray:
    return values.mean(axis=0)


def test_interval_of_a_mean_is_the_t_interval():
    values = np.random.default_rng(0).normal(size=(5, 2)) * [1, 10]
    found = estimate_over_seeds(mean, values)
    for column, estimate in enumerate(found):
        interval = stats.ttest_1samp(values[:, column], 0).confidence_interval(0.95)
        assert estimate == pytest.approx((values[:, column].mean(), interval.low, interval.high))


def test_smooth_statistic_has_the_interval_of_its_linearization():
    values = np.random.default_rng(0).normal(1, 0.01, size=(20, 3))
    (found,) = estimate_over_seeds(lambda part: np.array([np.prod(part.mean(axis=0))]), values)
    center = values.mean(axis=0)
    linear = values @ (np.prod(center) / center)  # the derivative of the product
    interval = stats.ttest_1samp(linear, linear.mean()).confidence_interval(0.95)
    assert found.ci95_high - found.ci95_low == pytest.approx(interval.high - interval.low, rel=1e-3)
    assert found.value == np.prod(center)
    assert (found.ci95_low + found.ci95_high) / 2 == pytest.approx(found.value)


def test_one_seed_has_no_interval():
    (found,) = estimate_over_seeds(mean, np.array([[2.0]]))
    assert found.value == 2
    assert np.isnan([found.ci95_low, found.ci95_high]).all()


def test_interval_is_unbounded_if_the_statistic_needs_one_of_the_seeds():
    def first(values: np.ndarray) -> np.ndarray:
        return np.array([0.0 if 7 in values else np.nan])

    assert estimate_over_seeds(first, np.array([7, 1, 2])) == [Estimate(0, -np.inf, np.inf)]
    assert estimate_over_seeds(first, np.array([7, 1, 2]))[0].exp() == Estimate(1, 0, np.inf)
    (never,) = estimate_over_seeds(first, np.array([0, 1, 2]))
    assert np.isnan(never).all()
