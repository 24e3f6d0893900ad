"""Residual networks for small images, after He et al. 2016."""

from collections import OrderedDict

import torch
from torch import nn

from batchscape.config.model import ResNetConfig
from batchscape.data.spec import DataSpec
from batchscape.models.inputs import image_shape
from batchscape.models.layers import VECTOR_WIDTH, initialize_glorot_uniform, make_norm_layer


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions with a shortcut, which is a 1×1 convolution if the shape changes."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, norm: str):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)
        self.norm1 = make_norm_layer(norm, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False)
        self.norm2 = make_norm_layer(norm, out_channels)
        if stride != 1 or in_channels != out_channels:
            self.shortcut: nn.Module = make_shortcut(in_channels, out_channels, stride, norm)
        else:
            self.shortcut = nn.Identity()
        self.relu = nn.ReLU()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = self.relu(self.norm1(self.conv1(inputs)))
        return self.relu(self.norm2(self.conv2(hidden)) + self.shortcut(inputs))


def make_shortcut(in_channels: int, out_channels: int, stride: int, norm: str) -> nn.Sequential:
    """Return a 1×1 convolution and a normalization."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if stride != 1 and in_channels < VECTOR_WIDTH:
        # The same convolution of the subsampled input does not crash.
        layers["subsample"] = nn.AvgPool2d(1, stride)
        stride = 1
    layers["conv"] = nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False)
    layers["norm"] = make_norm_layer(norm, out_channels)
    return nn.Sequential(layers)


def build(config: ResNetConfig, spec: DataSpec, outputs: int) -> nn.Sequential:
    """Return a residual network for small images: He et al. 2016, section 4.2, with projection shortcuts (option B)."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels = config.channels[0]
    layers["conv"] = nn.Conv2d(image_shape(spec, config.name)[0], channels, kernel_size=3, padding=1, bias=False)
    layers["norm"] = make_norm_layer(config.normalization, channels)
    layers["relu"] = nn.ReLU()
    for stage, out_channels in enumerate(config.channels, start=1):
        for block in range(1, config.blocks + 1):
            stride = 2 if stage > 1 and block == 1 else 1
            layers[f"stage{stage}_block{block}"] = ResidualBlock(channels, out_channels, stride, config.normalization)
            channels = out_channels
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["output"] = nn.Linear(channels, outputs)
    network = nn.Sequential(layers)
    initialize_glorot_uniform(network)
    return network
