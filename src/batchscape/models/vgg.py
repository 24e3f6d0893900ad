"""Networks after Simonyan & Zisserman 2015."""

from collections import OrderedDict

from torch import nn

from batchscape.config.model import VggConfig
from batchscape.models.layers import dense_layers, normalization


def build(config: VggConfig, image_shape: tuple[int, int, int], outputs: int) -> nn.Sequential:
    """Return blocks of 3×3 convolutions, each with ReLU, and 2×2 max-pooling, then dense layers.

    After Simonyan & Zisserman 2015; with one convolution a block as in Chang & Pathak 2020.
    """
    depth, height, width = image_shape
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for block, width_out in enumerate(config.channels, start=1):
        for convolution in range(1, config.convolutions + 1):
            name = f"conv{block}" if config.convolutions == 1 else f"conv{block}_{convolution}"
            normalized = config.normalization != "none"
            layers[name] = nn.Conv2d(depth, width_out, kernel_size=3, padding=1, bias=not normalized)
            if normalized:
                layers[f"{name}_norm"] = normalization(config.normalization, width_out)
            layers[f"{name}_relu"] = nn.ReLU()
            depth = width_out
        layers[f"conv{block}_pool"] = nn.MaxPool2d(2)
        height, width = height // 2, width // 2
    layers["flatten"] = nn.Flatten()
    layers.update(dense_layers(depth * height * width, config.dense, outputs, config.dropout, first_drops=True))
    return nn.Sequential(layers)
