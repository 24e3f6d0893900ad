"""Multilayer perceptrons."""

from collections import OrderedDict

from torch import nn

from batchscape.config.model import MlpConfig
from batchscape.models.layers import make_dense_layers


def build(config: MlpConfig, image_shape: tuple[int, int, int], outputs: int) -> nn.Sequential:
    """Return dense layers with ReLU on all pixels."""
    channels, height, width = image_shape
    dense = make_dense_layers(channels * height * width, config.dense, outputs, config.dropout, dropout_first=False)
    return nn.Sequential(OrderedDict([("flatten", nn.Flatten()), *dense.items()]))
