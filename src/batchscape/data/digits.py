"""The built-in dataset: scikit-learn's digits."""

import numpy as np

from batchscape.config.data.images import DigitsConfig
from batchscape.data.interpret import from_arrays
from batchscape.data.source import DEFAULT_OPTIONS, LoadOptions, RawDataset

NUM_IMAGES = 1797
IMAGE_SHAPE = (8, 8, 1)  # height, width, channels
CLASSES = {"parity": ("even", "odd"), "digit": tuple("0123456789")}


def load(config: DigitsConfig, options: LoadOptions = DEFAULT_OPTIONS) -> RawDataset:  # noqa: ARG001
    """Return 1,797 grayscale images of 8×8 pixels, labeled odd or even, or by digit.

    The images are the test set of Alpaydin & Kaynak, "Optical Recognition of Handwritten Digits" (UCI, 1998), as
    distributed with scikit-learn. Their 17 gray levels are scaled to 0–255.
    """
    from sklearn import datasets

    digits = datasets.load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    labels = digits.target % 2 if config.task == "parity" else digits.target
    return from_arrays(images, labels, CLASSES[config.task], "digits", "data.task")
