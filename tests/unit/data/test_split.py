"""The split into training and validation."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from batchscape.data.split import split
from batchscape.errors import UserError


@given(count=st.integers(2, 2000), fraction=st.floats(0.001, 0.999), seed=st.integers(0, 2**32 - 1))
def test_split_is_a_partition_with_the_validation_fraction(count: int, fraction: float, seed: int):
    expected = count * fraction
    assume(0.5 < expected < count - 0.5)
    train, validation = split(count, fraction, "random", seed)[:2]
    assert sorted([*train, *validation]) == list(range(count))
    assert abs(len(validation) - expected) <= 0.5
    assert (np.diff(train) > 0).all()
    assert (np.diff(validation) > 0).all()


def test_split_depends_on_the_seed_only(randomness):
    randomness.seed(1)
    first = split(100, 0.2, "random", 7)
    randomness.seed(2)
    second = split(100, 0.2, "random", 7)
    assert [part.tolist() for part in first] == [part.tolist() for part in second]


def test_split_preserves_global_random_states(randomness):
    randomness.seed(1)
    expected = randomness.draws()
    randomness.seed(1)
    split(100, 0.2, "random", 7)
    assert randomness.draws() == expected


def test_different_seeds_give_different_splits():
    assert len({tuple(split(100, 0.2, "random", seed)[1]) for seed in range(20)}) == 20


def test_split_does_not_change_between_versions():
    # If this fails, all published results change.
    assert split(10, 0.3, "random", 0)[1].tolist() == [2, 4, 6]


@pytest.mark.parametrize(("count", "fraction"), [(2, 0.1), (2, 0.9), (1797, 1e-9), (1797, 1 - 1e-9), (1, 0.5)])
def test_split_with_an_empty_side_raises(count: int, fraction: float):
    with pytest.raises(UserError, match="leaves one side of the split empty"):
        split(count, fraction, "random", 0)
