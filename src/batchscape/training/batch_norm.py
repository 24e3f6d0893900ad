"""BatchNorm over a global batch that several processes share.

torch's SyncBatchNorm does this on GPUs alone, and not for a process whose share of a short batch is empty.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from batchscape.errors import UserError
from batchscape.training.ranks import Ranks


def synchronise_batch_norm(network: nn.Module, ranks: Ranks) -> None:
    """Have each BatchNorm of a network take its statistics from the global batch; names and parameters stay.

    Raises UserError for what else keeps running statistics, which would be those of one process's share.
    """
    for module in network.modules():
        for name, child in module.named_children():
            if isinstance(child, _BatchNorm):
                setattr(module, name, GlobalBatchNorm(child, ranks))
            elif isinstance(child, _NormBase) and child.track_running_stats:
                raise UserError(
                    f"resources.devices: {type(child).__name__} with track_running_stats cannot be trained by several "
                    "processes; take it out of the network or write `devices: 1`"
                )


class GlobalBatchNorm(_BatchNorm):
    """Ioffe & Szegedy 2015, algorithm 1, with the mean and the variance of the examples of all processes."""

    def __init__(self, original: _BatchNorm, ranks: Ranks):
        super().__init__(
            original.num_features, original.eps, original.momentum, original.affine, original.track_running_stats
        )
        for name, value in [*original.named_parameters(recurse=False), *original.named_buffers(recurse=False)]:
            setattr(self, name, value)
        self.train(original.training)
        self.ranks = ranks

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return inputs, (b, channels, …), normalised; b may be 0 in training."""
        mean, variance = self.running_mean, self.running_var
        if not self.training:
            return F.batch_norm(inputs, mean, variance, self.weight, self.bias, training=mean is None, eps=self.eps)
        dims = [0, *range(2, inputs.dim())]
        shape = [1, -1, *[1] * (inputs.dim() - 2)]
        count = self.ranks.sum(torch.tensor(float(inputs.numel() // inputs.shape[1]), device=inputs.device))
        batch_mean = _Sum.apply(inputs.sum(dims), self.ranks) / count
        centred = inputs - batch_mean.view(shape)
        batch_variance = _Sum.apply(centred.square().sum(dims), self.ranks) / count
        if mean is not None:
            with torch.no_grad():
                self.num_batches_tracked += 1
                share = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
                mean += share * (batch_mean - mean)
                variance += share * (batch_variance * count / (count - 1) - variance)
        result = centred * (batch_variance + self.eps).rsqrt().view(shape)
        return result if self.weight is None else result * self.weight.view(shape) + self.bias.view(shape)


class _Sum(torch.autograd.Function):
    """The sum over all processes, each of whose losses depends on it."""

    @staticmethod
    def forward(context: Any, tensor: torch.Tensor, ranks: Ranks) -> torch.Tensor:
        context.ranks = ranks
        return ranks.sum(tensor.clone())

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return context.ranks.sum(gradient.clone(memory_format=torch.contiguous_format)), None
