"""A custom network: two convolutions, with BatchNorm and dropout."""

import torch
from torch import nn


class Net(nn.Module):
    """Two convolutions with BatchNorm, followed by dropout and a dense layer.

    Batchscape passes `image_shape`, (channels, height, width), and `outputs`; `width` comes from the study file.
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
