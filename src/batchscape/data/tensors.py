"""Prepared uint8 images as what a network takes."""

import numpy as np
import torch


def on_device(images: np.ndarray, labels: np.ndarray, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images, uint8, and labels, (n,) int64, as they are, on a device."""
    return torch.from_numpy(images).to(device), torch.from_numpy(labels).to(device)


def as_input(images: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return images, (n, channels, height, width) uint8, as floats in [0, 1], channels last in memory."""
    return images.to(dtype, memory_format=torch.channels_last).div_(255)
