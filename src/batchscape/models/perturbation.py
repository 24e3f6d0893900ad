"""A copy of a network at nearby weights, where nothing is hidden by weights of zero or by an estimate at rest."""

import copy

import torch
from torch import nn


def copy_perturbed(network: nn.Module) -> nn.Module:
    """Return a copy of a network, each floating-point parameter moved by normal noise of 0.01, the same in each call.

    torch's random state stays as it is.
    """
    twin = copy.deepcopy(network)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        for parameter in filter(torch.is_floating_point, twin.parameters()):
            # Drawn on the CPU, so that all devices move the weights alike.
            parameter += 0.01 * torch.randn(parameter.shape, dtype=parameter.dtype).to(parameter.device)
    return twin
