"""Batches of prepared uint8 images as the input of a network."""

import math

import numpy as np
import torch

# Share of a GPU's free memory that the images may take; the rest is for the computation.
RESIDENT_MEMORY_FRACTION = 0.5


def to_tensors(images: np.ndarray, labels: np.ndarray, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images, uint8, and labels, (n,) int64, as tensors on a device, unchanged."""
    return torch.from_numpy(images).to(device), torch.from_numpy(labels).to(device)


def storage_device(num_bytes: int, device: torch.device, free_bytes: float | None = None) -> torch.device:
    """Return where to store images of `num_bytes` for a device that computes with them.

    That is the device itself if they take at most half of its `free_bytes` (by default those that a GPU reports),
    otherwise host memory.
    """
    if free_bytes is None:
        free_bytes = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else math.inf
    return device if num_bytes <= RESIDENT_MEMORY_FRACTION * free_bytes else torch.device("cpu")


def gather_examples(images: torch.Tensor, indices: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return `images[indices]` on a device: (b, channels, height, width), channels-last in memory.

    `images`, (n, channels, height, width), and `indices`, (b,), are on the same device, which may be another one.
    """
    # With channels-last images this copies image by image; `images[indices]` would copy value by value.
    rows = images.permute(0, 2, 3, 1).index_select(0, indices)
    return rows.to(device).permute(0, 3, 1, 2)


def normalize_images(images: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return images, (n, channels, height, width) uint8, as floats in [0, 1], channels-last in memory."""
    return images.to(dtype, memory_format=torch.channels_last).div_(255)
