"""Made images of any size and count."""

import numpy as np

from batchscape.config.data import SyntheticConfig
from batchscape.data.source import RawDataset, from_arrays

# Squares along each side of a class's pattern.
COARSE = 4


def load(config: SyntheticConfig, threads: int = 1) -> RawDataset:  # noqa: ARG001
    """Return images whose class shows as a coarse pattern of its own, under noise; a function of the config alone.

    Image i is of class i mod classes. Each channel of a pattern is 4×4 squares of normally distributed brightness; a
    pixel's standard deviation of noise is `noise` times theirs. Brightness 0 is mid-grey, 1 is 42 of 255 levels.
    """
    rng = np.random.default_rng(config.data_seed)
    height, width = config.image_size
    rows, columns = (np.arange(side) * COARSE // side for side in (height, width))
    patterns = rng.standard_normal((config.classes, COARSE, COARSE, config.channels), dtype=np.float32)
    patterns = patterns[:, rows][:, :, columns]
    labels = np.arange(config.images) % config.classes
    images = np.empty((config.images, height, width, config.channels), np.uint8)
    for index, label in enumerate(labels):
        noise = rng.standard_normal((height, width, config.channels), dtype=np.float32)
        images[index] = np.clip(127.5 + 42 * (patterns[label] + config.noise * noise), 0, 255)
    return from_arrays(images, labels, [f"class{label}" for label in range(config.classes)], "synthetic", "data.source")
