"""Multilayer perceptrons."""

import math
from collections import OrderedDict

import torch
from torch import Tensor, nn

from batchscape.config.model import MlpConfig
from batchscape.data.spec import DataSpec
from batchscape.errors import UserError
from batchscape.models.inputs import describe_inputs
from batchscape.models.layers import initialize_glorot_uniform, make_dense_layers

MAX_EMBEDDING = 50


def build(config: MlpConfig, spec: DataSpec, outputs: int) -> nn.Sequential:
    """Return dense layers with ReLU on all pixels, or on all numbers and the embedded categories of a row."""
    if spec.inputs == "tokens":
        raise UserError(
            f"model.name: mlp takes images, numbers and columns, the data has {describe_inputs(spec)}; "
            "write `name: transformer`"
        )
    first: dict[str, nn.Module] = {}
    if spec.inputs == "columns":
        embedded = EmbeddedColumns(spec.categories)
        first["columns"] = embedded
        features = spec.shape[0] + embedded.features
    else:
        first["flatten"] = nn.Flatten() if spec.shape else nn.Unflatten(0, (-1, 1))  # of one number per example
        features = math.prod(spec.shape)
    dense = make_dense_layers(features, config.dense, outputs, config.dropout, dropout_first=False)
    network = nn.Sequential(OrderedDict([*first.items(), *dense.items()]))
    initialize_glorot_uniform(network)
    return network


class EmbeddedColumns(nn.Module):
    """Concatenates the numbers of a row with an embedding of each of its categories.

    An embedding of k categories has min(50, ⌈k/2⌉) dimensions (the rule of fast.ai's first tabular models, after Guo &
    Berkhahn 2016), and initial weights that are standard normal, as torch's: their scale is that of standardized
    numbers.
    """

    def __init__(self, categories: tuple[int, ...]):
        super().__init__()
        sizes = [min(MAX_EMBEDDING, math.ceil(count / 2)) for count in categories]
        names = [f"embedding{index}" for index in range(1, len(categories) + 1)]
        for name, count, size in zip(names, categories, sizes, strict=True):
            self.add_module(name, nn.Embedding(count, size))
        self.features = sum(sizes)

    def forward(self, inputs: tuple[Tensor, Tensor]) -> Tensor:
        numbers, categories = inputs
        embedded = [embedding(column) for embedding, column in zip(self.children(), categories.unbind(1), strict=True)]
        return torch.cat([numbers, *embedded], 1)
