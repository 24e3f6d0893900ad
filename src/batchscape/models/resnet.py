"""Residual networks for small images, after He et al. 2016."""

from collections import OrderedDict

import torch
from torch import nn

from batchscape.config.model import ResNetConfig
from batchscape.models.layers import normalization


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions, added to their input; where the shape changes, that goes through a 1×1 convolution."""

    def __init__(self, depth: int, width: int, stride: int, norm: str):
        super().__init__()
        self.conv1 = nn.Conv2d(depth, width, kernel_size=3, stride=stride, padding=1, bias=False)
        self.norm1 = normalization(norm, width)
        self.conv2 = nn.Conv2d(width, width, kernel_size=3, padding=1, bias=False)
        self.norm2 = normalization(norm, width)
        if stride != 1 or depth != width:
            shortcut = nn.Conv2d(depth, width, kernel_size=1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(OrderedDict(conv=shortcut, norm=normalization(norm, width)))
        else:
            self.shortcut = nn.Identity()
        self.relu = nn.ReLU()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = self.relu(self.norm1(self.conv1(inputs)))
        return self.relu(self.norm2(self.conv2(hidden)) + self.shortcut(inputs))


def build(config: ResNetConfig, image_shape: tuple[int, int, int], outputs: int) -> nn.Sequential:
    """Return a residual network for small images: He et al. 2016, section 4.2, with projections as shortcuts (B)."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    depth = config.channels[0]
    layers["conv"] = nn.Conv2d(image_shape[0], depth, kernel_size=3, padding=1, bias=False)
    layers["norm"] = normalization(config.normalization, depth)
    layers["relu"] = nn.ReLU()
    for stage, width in enumerate(config.channels, start=1):
        for block in range(1, config.blocks + 1):
            stride = 2 if stage > 1 and block == 1 else 1
            layers[f"stage{stage}_block{block}"] = ResidualBlock(depth, width, stride, config.normalization)
            depth = width
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["output"] = nn.Linear(depth, outputs)
    return nn.Sequential(layers)
