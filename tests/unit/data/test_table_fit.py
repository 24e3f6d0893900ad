"""What the training rows of a table decide."""

import numpy as np
import pytest

from batchscape.data.table_files import TableFile
from batchscape.data.table_fit import MISSING, Levels, Moments

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
    assert moments.counts.tolist() == [857, 1000, 1000]
    assert moments.varies.all()


def test_constant_and_missing_columns_do_not_vary():
    moments = Moments(3)
    for value in (0.1, 0.1, 0.1):
        moments.add(np.array([[value, np.nan, value if moments.counts[0] else 7]]))
    assert moments.varies.tolist() == [False, False, True]


def test_levels_are_numbered_in_order_of_appearance():
    levels = Levels(TableFile("t.csv", "data.path", ["x"], frozenset()), "x")
    assert levels.encode(["b", "a", None, "b"]).tolist() == [0, 1, MISSING, 0]
    assert levels.encode(["c", "a"]).tolist() == [2, 1]
    assert levels.names == ["b", "a", "c"]
    assert dict(levels.counts) == {0: 2, 1: 2, 2: 1}
