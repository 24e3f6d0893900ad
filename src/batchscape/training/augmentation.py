"""Random flips and shifts of training images, as a pure function of seed, epoch and example."""

from dataclasses import dataclass

import numpy as np
import torch

from batchscape.training.sampler import AUGMENTATION


@dataclass(frozen=True)
class Augmentation:
    """The flips and shifts of n images."""

    flips: torch.Tensor
    """Whether each image is flipped left to right, (n,), bool."""

    shifts: torch.Tensor
    """Pixels by which each image is then shifted down and to the right, (n, 2), int64."""

    def __getitem__(self, indices: torch.Tensor | slice) -> "Augmentation":
        return Augmentation(self.flips[indices], self.shifts[indices])

    def to(self, device: torch.device) -> "Augmentation":
        return Augmentation(self.flips.to(device), self.shifts.to(device))


def draw_augmentation(count: int, flip: bool, shift: int, seed: int, epoch: int) -> Augmentation:
    """Draw the augmentation of all training images for one epoch.

    An example's draw depends on neither its batch nor the order, and its shift not on `flip`.

    Args:
        count: Number of training images.
        flip: Whether images are flipped, each with probability ½.
        shift: Images are shifted in each direction by one of −shift, …, shift pixels, all equally likely.
        seed: Seed of the run.
        epoch: The epoch, from 1.

    Returns:
        The augmentation of each image, on the CPU.
    """
    rng = np.random.default_rng([seed, epoch, AUGMENTATION])
    shifts = rng.integers(-shift, shift, (count, 2), endpoint=True)
    flips = rng.integers(0, 2, count, dtype=bool, endpoint=False) if flip else np.zeros(count, bool)
    return Augmentation(torch.from_numpy(flips), torch.from_numpy(shifts))


def augment_images(images: torch.Tensor, augmentation: Augmentation) -> torch.Tensor:
    """Flip and then shift images, zero-padded.

    Args:
        images: uint8, (n, channels, height, width).
        augmentation: The augmentation of each image, on the same device.

    Returns:
        New images, in channels-last memory format.
    """
    flips, shifts = augmentation.flips, augmentation.shifts
    count, channels, height, width = images.shape
    examples = torch.arange(count, device=images.device)[:, None, None]
    rows = torch.arange(height, device=images.device) - shifts[:, :1]
    columns = torch.arange(width, device=images.device) - shifts[:, 1:]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    columns = torch.where(flips[:, None], width - 1 - columns, columns)
    rows, columns = rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None, :]
    # All channels of a pixel by one index: twice as fast as by example, row and column.
    pixels = images.permute(0, 2, 3, 1).reshape(-1, channels)
    shifted = pixels.index_select(0, ((examples * height + rows) * width + columns).flatten())
    return shifted.mul_(inside.reshape(-1, 1)).reshape(count, height, width, channels).permute(0, 3, 1, 2)
