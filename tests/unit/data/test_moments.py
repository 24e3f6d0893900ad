"""Mean, variance and extremes of columns, chunk by chunk."""

import numpy as np
import pytest

from batchscape.data.moments import Moments

NUMBERS = np.random.default_rng(0).normal([3, -1e6, 0], [1, 0.01, 1e-9], (1000, 3))


@pytest.mark.parametrize("size", [1000, 64, 1])
def test_moments_equal_those_of_numpy_in_chunks(size: int):
    numbers = NUMBERS.copy()
    numbers[::7, 0] = np.nan
    moments = Moments(3)
    for start in range(0, 1000, size):
        moments.add(numbers[start : start + size])
    np.testing.assert_allclose(moments.means, np.nanmean(numbers, axis=0), rtol=1e-12)
    np.testing.assert_allclose(moments.deviations, np.nanstd(numbers, axis=0), rtol=1e-6)
    assert moments.weights.tolist() == [857, 1000, 1000]
    assert moments.varies.all()


def test_constant_and_missing_columns_do_not_vary():
    moments = Moments(3)
    for value in (0.1, 0.1, 0.1):
        moments.add(np.array([[value, np.nan, value if moments.weights[0] else 7]]))
    assert moments.varies.tolist() == [False, False, True]


@pytest.mark.parametrize("size", [1000, 64, 1])
def test_weighted_moments_equal_those_of_repeated_rows(size: int):
    numbers = np.random.default_rng(1).normal([3, -50], [1, 20], (1000, 2))
    weights = np.random.default_rng(2).integers(0, 4, (1000, 1))
    moments = Moments(2)
    for start in range(0, 1000, size):
        moments.add(numbers[start : start + size], weights[start : start + size].astype(float))
    repeated = np.repeat(numbers, weights[:, 0], axis=0)
    assert moments.weights.tolist() == [len(repeated)] * 2
    np.testing.assert_allclose(moments.means, repeated.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(moments.variances, repeated.var(axis=0), rtol=1e-12)
