"""Networks by name or import path, and their initial weights."""

from importlib import import_module
from typing import Any

import torch
from torch import nn

from batchscape.config.model import ModelConfig, OwnModelConfig, model_module
from batchscape.errors import UserError, is_out_of_memory
from batchscape.runtime.randomness import seed_global_rngs
from batchscape.runtime.user_code import summarize_error

ImageShape = tuple[int, int, int]
"""(channels, height, width) of what a network takes."""


def build_network(config: ModelConfig, image_shape: ImageShape, outputs: int, seed: int) -> nn.Module:
    """Return the configured network with the initial weights that all runs of one seed share.

    It takes (n, *image_shape) float in [0, 1] and gives logits, (n, outputs); sigmoid or softmax stands in the loss,
    where it is numerically stable. Weights of the networks here are Glorot-uniform (Glorot & Bengio 2010, eq. 16),
    biases zero, as in Chang & Pathak 2020; one of the user's own keeps what it makes. They are a function of the
    arguments alone; the caller's random states are left as they were. Weights of convolutions lie channels-last in
    memory, as the input does, so that convolutions make no copies; a network that cannot take that has both contiguous.

    Raises UserError when the network does not go with such images, or the user's own cannot be made.
    """
    with torch.random.fork_rng(devices=[]), seed_global_rngs(seed):
        torch.manual_seed(seed)
        build = import_module(model_module(config.name)).build
        if isinstance(config, OwnModelConfig):
            return build(config, image_shape, outputs)
        smallest = 2**config.halvings
        if min(image_shape[1:]) < smallest:
            raise UserError(
                f"model.channels: the network halves the images {config.halvings} times and needs at least "
                f"{smallest}×{smallest} pixels, the data has {image_shape[1]}×{image_shape[2]}; give fewer channels"
            )
        network = build(config, image_shape, outputs)
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
    return network.to(memory_format=torch.channels_last)


def apply_network(network: nn.Module, images: torch.Tensor, name: str) -> Any:
    """Return what a network gives for images, (n, channels, height, width) float.

    Raises UserError if it cannot take them; `name` is what the study file calls it.
    """
    try:
        return network(images)
    except Exception as error:  # whatever the user's code does
        if is_out_of_memory(error):
            raise
        raise UserError(
            f"model.name: {name} cannot take images of shape {tuple(images.shape[1:])}: {summarize_error(error)}"
        )
