"""Prepared uint8 images as what a network takes."""

import math

import numpy as np
import torch

# Of a GPU's free memory; the rest is for what is computed.
RESIDENT_MEMORY_FRACTION = 0.5


def to_tensors(images: np.ndarray, labels: np.ndarray, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images, uint8, and labels, (n,) int64, as they are, on a device."""
    return torch.from_numpy(images).to(device), torch.from_numpy(labels).to(device)


def storage_device(size: int, device: torch.device, free: float | None = None) -> torch.device:
    """Return where images of `size` bytes are kept for a device that computes with them.

    That is the device if they take at most half of its `free` bytes, by default what a GPU says, or else host memory.
    """
    if free is None:
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else math.inf
    return device if size <= RESIDENT_MEMORY_FRACTION * free else torch.device("cpu")


def gather_examples(images: torch.Tensor, indices: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return the images of some indices, (b,), on a device: (b, channels, height, width), channels last in memory.

    `images` and `indices` are on one device, which may be another.
    """
    # Where the channels are last in memory too, this copies image by image; `images[indices]` goes value by value.
    rows = images.permute(0, 2, 3, 1).index_select(0, indices)
    return rows.to(device).permute(0, 3, 1, 2)


def normalize_images(images: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return images, (n, channels, height, width) uint8, as floats in [0, 1], channels last in memory."""
    return images.to(dtype, memory_format=torch.channels_last).div_(255)
