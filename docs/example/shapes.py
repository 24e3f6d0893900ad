"""A custom data source: noisy drawings of circles, squares and triangles."""

import numpy as np

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
