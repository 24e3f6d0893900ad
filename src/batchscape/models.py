"""Networks by name, and their initial weights."""

from collections import OrderedDict

import torch
from torch import nn

from batchscape.config.model import ModelConfig
from batchscape.errors import UserError


def vgg(image_shape: tuple[int, int, int], channels: tuple[int, ...], dense: tuple[int, ...]) -> nn.Sequential:
    """Return blocks of 3×3 convolution, ReLU and 2×2 max-pooling, then dense layers, then one logit.

    `image_shape` is (channels, height, width). Input (n, *image_shape) float in [0, 1], output (n, 1). The
    sigmoid that makes the logit a probability stands in the loss, where it is numerically stable.
    A VGG-style network after Simonyan & Zisserman 2015, as in Chang & Pathak 2020.
    Raises UserError when the images are too small for so many blocks.
    """
    depth, height, width = image_shape
    smallest = 2 ** len(channels)
    if min(height, width) < smallest:
        raise UserError(
            f"model.channels: {len(channels)} blocks halve the images as often and need at least {smallest}×{smallest} "
            f"pixels, the data has {height}×{width}; give fewer channels"
        )
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index, width_out in enumerate(channels, start=1):
        layers[f"conv{index}"] = nn.Conv2d(depth, width_out, kernel_size=3, padding=1)
        layers[f"conv{index}_relu"] = nn.ReLU()
        layers[f"conv{index}_pool"] = nn.MaxPool2d(2)
        depth, height, width = width_out, height // 2, width // 2
    layers["flatten"] = nn.Flatten()
    features = depth * height * width
    for index, units in enumerate(dense, start=1):
        layers[f"dense{index}"] = nn.Linear(features, units)
        layers[f"dense{index}_relu"] = nn.ReLU()
        features = units
    layers["output"] = nn.Linear(features, 1)
    return nn.Sequential(layers)


def build_network(config: ModelConfig, image_shape: tuple[int, int, int], seed: int) -> nn.Module:
    """Return the configured network with the initial weights that all runs of one seed share.

    Weights are Glorot-uniform (Glorot & Bengio 2010, eq. 16), biases zero, as in Chang & Pathak 2020. They are
    a function of (config, image_shape, seed) alone; the caller's random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = {"vgg": vgg}[config.name](image_shape, config.channels, config.dense)
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
    return network
