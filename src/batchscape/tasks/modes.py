"""The modes that a network and torch are in while a loss is evaluated or differentiated."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel


class DoubleOutputs(nn.Module):
    """A network whose outputs are converted to double precision, so that the loss is computed in it."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, inputs: Any) -> torch.Tensor:
        """Return the outputs of the network, float64."""
        return self.network(inputs).double()


@contextmanager
def evaluation_mode(network: torch.nn.Module) -> Iterator[None]:
    """Put a network in evaluation mode inside the context, and restore the mode of each of its modules."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        network.train(modes[0][1])  # a custom network may override `train` to do more than set modes
        for module, training in modes:
            module.training = training


@contextmanager
def enable_backward(network: torch.nn.Module) -> Iterator[None]:
    """Allow a backward pass in evaluation mode inside the context.

    cuDNN's recurrent layers do not support it, torch's own implementation does.
    """
    enabled = torch.backends.cudnn.enabled
    if any(isinstance(module, torch.nn.RNNBase) for module in network.modules()):
        torch.backends.cudnn.enabled = False
    try:
        yield
    finally:
        torch.backends.cudnn.enabled = enabled


@contextmanager
def enable_double_backward(network: torch.nn.Module) -> Iterator[None]:
    """Allow second derivatives in evaluation mode inside the context: fused attention kernels do not have them."""
    with enable_backward(network), sdpa_kernel(SDPBackend.MATH):
        yield
