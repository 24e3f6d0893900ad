"""Synthetic images of any size and number."""

import numpy as np

from batchscape.config.data.images import SyntheticConfig
from batchscape.data.interpret import from_arrays
from batchscape.data.scratch import Scratch
from batchscape.data.source import DEFAULT_OPTIONS, LoadOptions, RawDataset

# Each channel of a class's pattern has this many squares per side.
PATTERN_SIDE = 4


def load(config: SyntheticConfig, options: LoadOptions = DEFAULT_OPTIONS) -> RawDataset:
    """Return images that show the pattern of their class under Gaussian noise; they depend on the config alone.

    Image i is of class i mod classes. Each channel of a pattern is 4×4 squares with brightness drawn from a standard
    normal distribution; `noise` is the standard deviation of the noise of a pixel in the same units. Brightness 0 is
    gray level 127.5, and one unit is 42 levels.
    """
    rng = np.random.default_rng(config.data_seed)
    height, width = config.image_size
    rows, columns = (np.arange(side) * PATTERN_SIDE // side for side in (height, width))
    patterns = rng.standard_normal((config.classes, PATTERN_SIDE, PATTERN_SIDE, config.channels), dtype=np.float32)
    patterns = patterns[:, rows][:, :, columns]
    labels = np.arange(config.images) % config.classes
    images = Scratch((height, width, config.channels), np.uint8, options.folder)
    for label in labels:
        noise = rng.standard_normal((height, width, config.channels), dtype=np.float32)
        image = np.clip(127.5 + 42 * (patterns[label] + config.noise * noise), 0, 255)
        images.append(image[np.newaxis].astype(np.uint8))
    return from_arrays(images.read(), labels, class_names(config), "synthetic", "data.source")


def class_names(config: SyntheticConfig) -> list[str]:
    """Return the names of the classes."""
    return [f"class{label}" for label in range(config.classes)]
