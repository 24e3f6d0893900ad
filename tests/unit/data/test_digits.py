"""The built-in digits."""

import numpy as np
from sklearn import datasets

from batchscape.config.data.images import DigitsConfig
from batchscape.data import digits


def test_digits_are_bytes_of_full_range_with_channels_last():
    source = digits.load(DigitsConfig())
    assert (source.arrays["inputs"].shape, source.arrays["inputs"].dtype) == ((1797, 8, 8, 1), np.uint8)
    assert (source.arrays["targets"].shape, source.arrays["targets"].dtype) == ((1797,), np.int64)
    assert (source.arrays["inputs"].min(), source.arrays["inputs"].max()) == (0, 255)
    assert len(np.unique(source.arrays["inputs"])) == 17


def test_parity_labels_say_whether_the_digit_is_odd():
    odd = {1, 3, 5, 7, 9}
    source = digits.load(DigitsConfig())
    assert source.spec.classes == ("even", "odd")
    assert source.arrays["targets"].tolist() == [int(digit in odd) for digit in datasets.load_digits().target]


def test_digit_task_has_one_class_per_digit():
    source = digits.load(DigitsConfig(task="digit"))
    assert source.spec.classes == tuple("0123456789")
    assert np.array_equal(source.arrays["targets"], datasets.load_digits().target)


def test_gray_levels_and_orientation_are_preserved():
    images = digits.load(DigitsConfig()).arrays["inputs"]
    assert np.array_equal(np.rint(images[..., 0] / 255 * 16), datasets.load_digits().images)


def test_known_size_is_that_of_the_loaded_images():
    images = digits.load(DigitsConfig()).arrays["inputs"]
    assert DigitsConfig().known_size == (len(images), min(images.shape[1:3]))
    assert images.shape == (digits.NUM_IMAGES, *digits.IMAGE_SHAPE)
