"""Construction of networks, by name or import path, with their initial weights."""

from importlib import import_module
from typing import Any

import torch
from torch import nn

from batchscape.config.model import CustomModelConfig, ModelConfig, model_module
from batchscape.errors import UserError, is_out_of_memory
from batchscape.runtime.randomness import seed_global_rngs
from batchscape.runtime.user_code import summarize_error

ImageShape = tuple[int, int, int]
"""(channels, height, width) of the input of a network."""


def build_network(config: ModelConfig, image_shape: ImageShape, outputs: int, seed: int) -> nn.Module:
    """Return the configured network with the initial weights that all runs with one seed share.

    Weights of built-in networks are Glorot-uniform and biases zero, as in Chang & Pathak 2020; a custom network keeps
    its own initialization. Weights depend on the arguments alone, and the global random states are restored.
    Convolution weights are channels-last in memory, like the input, so that convolutions copy neither; a custom network
    that does not support this gets contiguous weights and input.

    Args:
        config: Section `model` of the study file.
        image_shape: (channels, height, width) of the input.
        outputs: Number of outputs per image.
        seed: Seed of the initial weights.

    Returns:
        The network, in training mode. It maps images, (n, *image_shape) floats in [0, 1], to logits, (n, outputs);
        sigmoid or softmax is part of the loss, where it is numerically stable.

    Raises:
        UserError: The network does not support images of this shape, or a custom network cannot be constructed.

    Source:
        Glorot & Bengio 2010, eq. 16.
    """
    with torch.random.fork_rng(devices=[]), seed_global_rngs(seed):
        torch.manual_seed(seed)
        build = import_module(model_module(config.name)).build
        if isinstance(config, CustomModelConfig):
            return build(config, image_shape, outputs)
        smallest = 2**config.num_downsamplings
        if min(image_shape[1:]) < smallest:
            raise UserError(
                f"model.channels: the network halves the images {config.num_downsamplings} times and needs at least "
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
    """Return the outputs of a network, reporting its errors as errors of the study.

    Args:
        network: The network.
        images: (n, channels, height, width), float.
        name: Name of the network in the study file.

    Returns:
        Whatever the network returns, which for a custom network may not be a tensor.

    Raises:
        UserError: The network raises an error, other than for lack of memory.
    """
    try:
        return network(images)
    except Exception as error:  # user code may raise anything
        if is_out_of_memory(error):
            raise
        raise UserError(
            f"model.name: {name} cannot take images of shape {tuple(images.shape[1:])}: {summarize_error(error)}"
        )
