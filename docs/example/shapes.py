"""A data set and a network of one's own: drawn triangles, squares and circles, and a small network for them."""

import numpy as np
import torch
from torch import nn

CLASSES = ["circle", "square", "triangle"]


def load(count: int, side: int = 16) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return images, (count, side, side) uint8, labels, (count,), and the names of the classes."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:side, :side]
    labels = np.arange(count) % len(CLASSES)
    images = np.empty((count, side, side), np.uint8)
    for image, label in zip(images, labels, strict=True):
        radius = rng.uniform(0.2, 0.35) * side
        y, x = rows - rng.uniform(0.4, 0.6) * side, columns - rng.uniform(0.4, 0.6) * side
        inside = [
            x**2 + y**2 < radius**2,
            np.maximum(abs(x), abs(y)) < radius,
            (y < radius) & (2 * abs(x) < y + radius),
        ][label]
        image[:] = np.clip(60 + 120 * inside + rng.normal(0, 30, (side, side)), 0, 255)
    return images, labels, CLASSES


class Net(nn.Module):
    """Two convolutions with BatchNorm, then dropout and one dense layer.

    `image_shape` (channels, height, width) and `outputs` are filled in by Batchscape, `width` by the study file.
    """

    def __init__(self, image_shape: tuple[int, int, int], outputs: int, width: int = 8):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(image_shape[0], width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.output = nn.Sequential(nn.Dropout(0.2), nn.Linear(2 * width, outputs))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.output(self.features(images))
