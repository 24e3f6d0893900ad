"""BatchNorm over a global batch that several processes share.

torch's SyncBatchNorm does this on GPUs alone, and not for a process whose share of a short batch is empty.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from batchscape.errors import UserError
from batchscape.tasks.compatibility import examples_are_independent
from batchscape.training.distributed import ProcessGroup


def synchronize_batch_norm(network: nn.Module, images: torch.Tensor, process_group: ProcessGroup) -> None:
    """Have each BatchNorm of a network take its statistics from the global batch; names and parameters stay.

    `images` are some that it takes, uint8, (n, channels, height, width). Raises UserError if the network takes more
    from a batch than these statistics: that would be from one process's share.
    """
    without = copy.deepcopy(network)
    _replace(without, _Identity.of)
    if not examples_are_independent(without, images):
        raise UserError(
            "resources.devices: what the network gives an image in training depends on other images in more ways than "
            "torch's BatchNorm, or it keeps statistics, so that several processes cannot train it; write `devices: 1`"
        )
    _replace(network, lambda original: GlobalBatchNorm(original, process_group))


def _replace(network: nn.Module, other: Callable[[_BatchNorm], nn.Module]) -> None:
    """Put another layer in the place of each BatchNorm that does what torch's do, and nothing of its own."""
    for module in network.modules():
        for name, child in module.named_children():
            if isinstance(child, _BatchNorm) and type(child).forward in (_BatchNorm.forward, nn.SyncBatchNorm.forward):
                setattr(module, name, other(child))


class _Identity(_BatchNorm):
    """A BatchNorm that gives what it gets; what a network may read of one is there."""

    @classmethod
    def of(cls, original: _BatchNorm) -> "_Identity":
        original.__class__ = cls
        return original

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs


class GlobalBatchNorm(_BatchNorm):
    """Ioffe & Szegedy 2015, algorithm 1, with the mean and the variance of the examples of all processes."""

    def __init__(self, original: _BatchNorm, process_group: ProcessGroup):
        super().__init__(
            original.num_features, original.eps, original.momentum, original.affine, original.track_running_stats
        )
        for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            setattr(self, name, getattr(original, name))  # None where the layer has none
        self.train(original.training)
        self.process_group = process_group

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return inputs, (b, channels, …), normalised; b may be 0 in training."""
        mean, variance = self.running_mean, self.running_var
        if not self.training:
            return F.batch_norm(inputs, mean, variance, self.weight, self.bias, training=mean is None, eps=self.eps)
        dims = [0, *range(2, inputs.dim())]
        shape = [1, -1, *[1] * (inputs.dim() - 2)]
        count = self.process_group.all_reduce(
            torch.tensor(float(inputs.numel() // inputs.shape[1]), device=inputs.device)
        )
        batch_mean = _Sum.apply(inputs.sum(dims), self.process_group) / count
        centred = inputs - batch_mean.view(shape)
        batch_variance = _Sum.apply(centred.square().sum(dims), self.process_group) / count
        if mean is not None:
            with torch.no_grad():
                self.num_batches_tracked += 1
                share = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
                mean += share * (batch_mean - mean)
                variance += share * (batch_variance * count / (count - 1) - variance)
        result = centred * (batch_variance + self.eps).rsqrt().view(shape)
        if self.weight is not None:
            result = result * self.weight.view(shape)
        return result if self.bias is None else result + self.bias.view(shape)


class _Sum(torch.autograd.Function):
    """The sum over all processes, each of whose losses depends on it."""

    @staticmethod
    def forward(context: Any, tensor: torch.Tensor, process_group: ProcessGroup) -> torch.Tensor:
        context.process_group = process_group
        return process_group.all_reduce(tensor.clone())

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return context.process_group.all_reduce(gradient.clone(memory_format=torch.contiguous_format)), None
