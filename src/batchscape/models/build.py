"""Construction of networks, by name or import path, with their initial weights."""

from importlib import import_module
from typing import Any

import torch
from torch import nn

from batchscape.config.model import CustomModelConfig, ModelConfig, model_module
from batchscape.data.spec import DataSpec
from batchscape.errors import UserError, is_out_of_memory
from batchscape.models.inputs import image_shape
from batchscape.runtime.randomness import seed_global_rngs
from batchscape.runtime.user_code import summarize_error


def build_network(
    config: ModelConfig, spec: DataSpec, outputs: int, seed: int, logged: tuple[str, ...] | None = None
) -> nn.Module:
    """Return the configured network with the initial weights that all runs with one seed share.

    Weights of built-in networks are Glorot-uniform and biases zero, as in Chang & Pathak 2020, and those of a
    transformer as in GPT-2; a custom network keeps its own initialization. Weights depend on the arguments alone, and
    the global random states are restored.
    Convolution weights are channels-last in memory, like the input, so that convolutions copy neither; a custom network
    that does not support this gets contiguous weights and input.

    Args:
        config: Section `model` of the study file.
        spec: What an example is.
        outputs: Number of outputs per example, or per position of the next token.
        seed: Seed of the initial weights.
        logged: Of a LightningModule with a loss of its own, the metrics that it logs; None: the network has outputs.

    Returns:
        The network, in training mode; with `logged` a `StepNetwork`. Otherwise it maps the inputs of a batch, a tensor
        or, for `columns`, a pair of tensors, to (n, outputs), or for the next tokens (n, length, outputs). Outputs for
        classes and tokens are logits; sigmoid or softmax is part of the loss, where it is numerically stable.

    Raises:
        UserError: The network does not support such inputs, or a custom network cannot be constructed.
    """
    with torch.random.fork_rng(devices=[]), seed_global_rngs(seed):
        torch.manual_seed(seed)
        build = import_module(model_module(config.name, logged is not None)).build
        if logged is not None:
            return build(config, spec, outputs, logged)
        if isinstance(config, CustomModelConfig):
            return build(config, spec, outputs)
        if config.num_downsamplings:
            _, height, width = image_shape(spec, config.name)
            smallest = 2**config.num_downsamplings
            if min(height, width) < smallest:
                raise UserError(
                    f"model.channels: the network halves the images {config.num_downsamplings} times and needs at "
                    f"least {smallest}×{smallest} pixels, the data has {height}×{width}; give fewer channels"
                )
        network = build(config, spec, outputs)
    return network.to(memory_format=torch.channels_last)


def apply_network(network: nn.Module, inputs: Any, name: str) -> Any:
    """Return the outputs of a network, reporting its errors as errors of the study.

    Args:
        network: The network.
        inputs: A tensor or a tuple of tensors, which the network takes as its one argument; first axis example.
        name: Name of the network in the study file.

    Returns:
        Whatever the network returns, which for a custom network may not be a tensor.

    Raises:
        UserError: The network raises an error, other than for lack of memory.
    """
    try:
        return network(inputs)
    except Exception as error:  # user code may raise anything
        if isinstance(error, UserError) or is_out_of_memory(error):
            raise
        tensors = (inputs,) if isinstance(inputs, torch.Tensor) else inputs
        shapes = " and ".join(str(tuple(tensor.shape[1:])) for tensor in tensors)
        raise UserError(f"model.name: {name} cannot take inputs of shape {shapes}: {summarize_error(error)}")
