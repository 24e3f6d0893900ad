"""Data: the digits, the split, and the prepared file."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from safetensors.numpy import save_file
from sklearn import datasets

from batchscape.config.data import DigitsConfig
from batchscape.data import digits
from batchscape.data.prepare import prepare
from batchscape.data.prepared import IMAGES, LABELS, PreparedData, read_prepared, write_prepared
from batchscape.data.split import split

# Digits.


def test_digits_are_bytes_of_full_range_with_channels_last():
    source = digits.load(DigitsConfig())
    assert (source.images.shape, source.images.dtype) == ((1797, 8, 8, 1), np.uint8)
    assert (source.labels.shape, source.labels.dtype) == ((1797,), np.int64)
    assert (source.images.min(), source.images.max()) == (0, 255)
    assert len(np.unique(source.images)) == 17


def test_a_label_says_whether_its_own_digit_is_odd():
    odd = {1, 3, 5, 7, 9}
    source = digits.load(DigitsConfig())
    assert source.classes == ("even", "odd")
    assert source.labels.tolist() == [int(digit in odd) for digit in datasets.load_digits().target]


def test_the_other_task_is_to_tell_the_digit():
    source = digits.load(DigitsConfig(task="digit"))
    assert source.classes == tuple("0123456789")
    assert np.array_equal(source.labels, datasets.load_digits().target)


def test_no_grey_level_is_lost_and_no_image_is_turned():
    images = digits.load(DigitsConfig()).images
    assert np.array_equal(np.rint(images[..., 0] / 255 * 16), datasets.load_digits().images)


# The split.


@given(count=st.integers(2, 2000), fraction=st.floats(0.001, 0.999), seed=st.integers(0, 2**32 - 1))
def test_a_split_has_each_image_once_and_the_asked_share_for_validation(count: int, fraction: float, seed: int):
    asked = count * fraction
    assume(0.5 < asked < count - 0.5)
    train, validation = split(count, fraction, "random", seed)
    assert sorted([*train, *validation]) == list(range(count))
    assert abs(len(validation) - asked) <= 0.5
    assert (np.diff(train) > 0).all()
    assert (np.diff(validation) > 0).all()


def test_a_split_is_a_function_of_its_seed_alone(randomness):
    randomness.seed(1)
    first = split(100, 0.2, "random", 7)
    randomness.seed(2)
    second = split(100, 0.2, "random", 7)
    assert [part.tolist() for part in first] == [part.tolist() for part in second]


def test_splitting_leaves_the_callers_random_states_as_they_were(randomness):
    randomness.seed(1)
    expected = randomness.draws()
    randomness.seed(1)
    split(100, 0.2, "random", 7)
    assert randomness.draws() == expected


def test_other_seeds_give_other_splits():
    assert len({tuple(split(100, 0.2, "random", seed)[1]) for seed in range(20)}) == 20


def test_a_split_does_not_change_between_versions():
    # A study that grows must keep its split. If this fails, all published results change with it.
    assert split(10, 0.3, "random", 0)[1].tolist() == [2, 4, 6]


@pytest.mark.parametrize(("count", "fraction"), [(2, 0.1), (2, 0.9), (1797, 1e-9), (1797, 1 - 1e-9), (1, 0.5)])
def test_a_split_with_an_empty_side_is_an_error(count: int, fraction: float):
    with pytest.raises(ValueError, match="leaves one side of the split empty"):
        split(count, fraction, "random", 0)


# Prepared data.


def test_prepared_data_is_the_digits_split_as_configured(prepared: PreparedData):
    source = digits.load(DigitsConfig())
    images, labels = source.images.transpose(0, 3, 1, 2), source.labels
    train, validation = split(1797, 0.2, "random", 0)
    assert (len(prepared.train_labels), len(prepared.validation_labels)) == (1438, 359)
    assert np.array_equal(prepared.train_images, images[train])
    assert np.array_equal(prepared.train_labels, labels[train])
    assert np.array_equal(prepared.validation_images, images[validation])
    assert np.array_equal(prepared.validation_labels, labels[validation])


def test_the_configured_fraction_and_seed_are_used(prepared: PreparedData):
    assert len(prepare(DigitsConfig(validation_fraction=0.5))[0].validation_labels) == 898
    other = prepare(DigitsConfig(split_seed=1))[0]
    assert not np.array_equal(other.validation_images, prepared.validation_images)


@pytest.mark.parametrize("fraction", [1e-9, 1 - 1e-9])
def test_a_fraction_that_leaves_a_side_empty_is_told_with_its_key(fraction: float, refusal: Callable):
    message = refusal(prepare, DigitsConfig(validation_fraction=fraction))
    assert message.startswith("data.validation_fraction: ")


def test_prepared_data_comes_back_from_its_file(prepared: PreparedData, tmp_path: Path):
    path = tmp_path / "data" / "images.safetensors"
    write_prepared(path, prepared)
    back = read_prepared(path)
    assert {field.name for field in fields(back)} == {*IMAGES, *LABELS, "classes"}
    for part in (*IMAGES, *LABELS):
        assert getattr(back, part).dtype == getattr(prepared, part).dtype
        assert np.array_equal(getattr(back, part), getattr(prepared, part))
    assert list(path.parent.iterdir()) == [path]


def test_equal_data_is_equal_bytes(prepared: PreparedData, tmp_path: Path):
    write_prepared(tmp_path / "a", prepared)
    write_prepared(tmp_path / "b", prepare(DigitsConfig())[0])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_missing_prepared_data_is_told_with_the_command_that_makes_it(tmp_path: Path, refusal: Callable):
    path = tmp_path / "images.safetensors"
    message = refusal(read_prepared, path)
    assert message.startswith(f"{path}: ")
    assert f"snakemake --cores 1 {path}" in message


@pytest.mark.parametrize("kept", [0, 7, 100, 5000, -1])
def test_truncated_prepared_data_is_refused(few_file: Path, tmp_path: Path, kept: int, refusal: Callable):
    path = tmp_path / "images.safetensors"
    path.write_bytes(few_file.read_bytes()[:kept])
    assert refusal(read_prepared, path).startswith(f"{path}: is corrupt or incomplete (")


@pytest.mark.parametrize("missing", [*IMAGES, *LABELS])
def test_prepared_data_without_one_of_its_parts_is_refused(missing: str, tmp_path: Path, refusal: Callable):
    path = tmp_path / "images.safetensors"
    arrays = {part: np.zeros((3, 1, 1, 1), np.uint8) for part in IMAGES} | {part: np.zeros(3) for part in LABELS}
    del arrays[missing]
    save_file(arrays, path)
    message = refusal(read_prepared, path)
    assert message.startswith(f"{path}: is corrupt or incomplete (")
    assert missing in message


def test_what_is_known_of_a_source_beforehand_is_what_it_loads():
    images = digits.load(DigitsConfig()).images
    assert DigitsConfig().known_size == (len(images), min(images.shape[1:3]))
    assert images.shape == (digits.NUM_IMAGES, *digits.IMAGE_SHAPE)
