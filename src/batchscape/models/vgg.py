"""Networks after Simonyan & Zisserman 2015."""

from collections import OrderedDict

from torch import nn

from batchscape.config.model import VggConfig
from batchscape.data.spec import DataSpec
from batchscape.models.inputs import image_shape
from batchscape.models.layers import initialize_glorot_uniform, make_dense_layers, make_norm_layer


def build(config: VggConfig, spec: DataSpec, outputs: int) -> nn.Sequential:
    """Return blocks of 3×3 convolutions, each with ReLU, and 2×2 max-pooling, followed by dense layers.

    With one convolution per block, this is the network of Chang & Pathak 2020.
    """
    channels, height, width = image_shape(spec, config.name)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for block, out_channels in enumerate(config.channels, start=1):
        for convolution in range(1, config.convolutions + 1):
            name = f"conv{block}" if config.convolutions == 1 else f"conv{block}_{convolution}"
            has_norm = config.normalization != "none"
            layers[name] = nn.Conv2d(channels, out_channels, kernel_size=3, padding=1, bias=not has_norm)
            if has_norm:
                layers[f"{name}_norm"] = make_norm_layer(config.normalization, out_channels)
            layers[f"{name}_relu"] = nn.ReLU()
            channels = out_channels
        layers[f"conv{block}_pool"] = nn.MaxPool2d(2)
        height, width = height // 2, width // 2
    layers["flatten"] = nn.Flatten()
    layers.update(
        make_dense_layers(channels * height * width, config.dense, outputs, config.dropout, dropout_first=True)
    )
    network = nn.Sequential(layers)
    initialize_glorot_uniform(network)
    return network
