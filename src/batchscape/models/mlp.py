"""Multilayer perceptrons."""

from collections import OrderedDict

from torch import nn

from batchscape.config.model import MlpConfig
from batchscape.models.layers import dense_layers


def build(config: MlpConfig, image_shape: tuple[int, int, int], outputs: int) -> nn.Sequential:
    """Return dense layers with ReLU over all pixels."""
    depth, height, width = image_shape
    dense = dense_layers(depth * height * width, config.dense, outputs, config.dropout, first_drops=False)
    return nn.Sequential(OrderedDict([("flatten", nn.Flatten()), *dense.items()]))
