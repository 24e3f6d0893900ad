"""Copies of a network with perturbed weights, which reveal what zero weights or converged estimates would hide."""

import copy

import torch
from torch import nn


def copy_perturbed(network: nn.Module) -> nn.Module:
    """Return a copy of a network with Gaussian noise of standard deviation 0.01 on each floating-point parameter.

    The noise is the same in each call. torch's random state is restored.
    """
    replica = copy.deepcopy(network)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        for parameter in filter(torch.is_floating_point, replica.parameters()):
            # Drawn on the CPU, so that the noise is the same on all devices.
            parameter.add_(0.01 * torch.randn(parameter.shape, dtype=parameter.dtype).to(parameter.device))
    return replica
