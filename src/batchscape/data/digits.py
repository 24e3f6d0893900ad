"""The embedded data set: scikit-learn's digits, odd or even."""

import numpy as np


def load_digits() -> tuple[np.ndarray, np.ndarray]:
    """Return images, (1797, 1, 8, 8) uint8 in 0…255, and labels, (1797,) int64, 1 for an odd digit.

    The images are the test set of Alpaydin & Kaynak, "Optical Recognition of Handwritten Digits" (UCI, 1998),
    as scikit-learn ships them: 17 grey levels, spread here over the 256 of a byte.
    """
    from sklearn import datasets

    digits = datasets.load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    return images[:, np.newaxis], (digits.target % 2).astype(np.int64)
