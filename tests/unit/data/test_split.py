"""The split into training and validation."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from batchscape.data.split import quantile_strata, split
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


@given(
    count=st.integers(3, 500),
    validation=st.floats(0.001, 0.9),
    test=st.floats(0.001, 0.9),
    seed=st.integers(0, 100),
    method=st.sampled_from(["random", "first"]),
)
def test_split_into_three_sides_is_a_partition(count: int, validation: float, test: float, seed: int, method: str):
    sizes = round(count * validation), round(count * test)
    assume(min(sizes) > 0)
    assume(sum(sizes) < count)
    parts = split(count, validation, method, seed, test)
    assert sorted(np.concatenate(parts)) == list(range(count))
    assert (len(parts[1]), len(parts[2])) == sizes
    assert all((np.diff(part) > 0).all() for part in parts)
    if method == "first":
        assert list(np.concatenate(parts)) == list(range(count))
    else:  # a test side takes from training, so results on validation data stay comparable
        assert np.array_equal(parts[1], split(count, validation, method, seed)[1])


def test_stratified_split_has_the_share_of_each_class_on_each_side():
    labels = np.repeat([0, 1, 2], [600, 300, 100])
    parts = split(1000, 0.2, "random", 3, 0.1, strata=labels)
    assert [np.bincount(labels[part]).tolist() for part in parts] == [[420, 210, 70], [120, 60, 20], [60, 30, 10]]
    other = split(1000, 0.2, "random", 4, 0.1, strata=labels)
    assert not np.array_equal(parts[1], other[1])


@given(
    counts=st.lists(st.integers(1, 60), min_size=2, max_size=8),
    validation=st.floats(0.05, 0.5),
    test=st.sampled_from([0.0, 0.1, 0.3]),
)
def test_stratified_split_deviates_by_less_than_two_examples_and_leaves_one_for_training(
    counts: list, validation: float, test: float
):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    total = len(labels)
    assume(round(total * validation) > 0)
    assume(not test or round(total * test) > 0)
    assume(total - round(total * validation) - round(total * test) >= len(counts))
    train, validating, testing = split(total, validation, "random", 0, test, strata=labels)
    assert sorted([*train, *validating, *testing]) == list(range(total))
    assert len(validating) == round(total * validation)
    assert len(testing) == round(total * test)
    assert set(labels[train]) == set(range(len(counts)))
    if min(counts) * (1 - validation - test) > 3:
        for label, count in enumerate(counts):
            assert abs((labels[validating] == label).sum() - count * len(validating) / total) < 2


@given(
    sizes=st.lists(st.integers(1, 30), min_size=4, max_size=30),
    seed=st.integers(0, 20),
    method=st.sampled_from(["random", "first"]),
)
def test_no_group_is_on_two_sides(sizes: list, seed: int, method: str):
    groups = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    assume(len(groups) >= 10)
    assume(max(sizes) < len(groups) / 4)
    parts = split(len(groups), 0.3, method, seed, 0.2, groups=groups)
    assert sorted(np.concatenate(parts)) == list(range(len(groups)))
    sides = [set(groups[part]) for part in parts]
    assert not (sides[0] & sides[1] | sides[0] & sides[2] | sides[1] & sides[2])
    assert all(sides)
    # The closest total is off by at most half a group.
    assert abs(len(parts[1]) - round(0.3 * len(groups))) <= max(sizes)


def test_first_groups_train_and_last_ones_test():
    groups = np.array(["a", "a", "b", "b", "c", "d"])
    assert [part.tolist() for part in split(6, 0.2, "first", 0, 0.2, groups=groups)] == [[0, 1, 2, 3], [4], [5]]


def test_groups_that_leave_nothing_for_training_are_rejected():
    with pytest.raises(UserError, match=r"^data.validation_fraction: no group is left for training"):
        split(10, 0.5, "random", 0, groups=np.zeros(10))


def test_fractions_that_leave_nothing_for_training_are_rejected():
    with pytest.raises(UserError, match=r"^data.test_fraction: .* leave none of 3 examples for training"):
        split(3, 0.49, "random", 0, 0.5)


def test_numbers_are_stratified_by_tenths():
    values = np.random.default_rng(0).permutation(1000).astype(np.float32)
    strata = quantile_strata(values)
    assert np.bincount(strata).tolist() == [100] * 10
    assert all(np.ptp(values[strata == stratum]) < 100 for stratum in range(10))
    assert len(np.unique(quantile_strata(np.zeros(50)))) == 1
