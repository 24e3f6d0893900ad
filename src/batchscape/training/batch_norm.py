"""BatchNorm over a global batch that several processes share.

torch's SyncBatchNorm requires GPUs, and fails for a process whose shard of a short batch is empty.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

# The base class of all of torch's BatchNorm layers; there is no public name for it.
from torch.nn.modules.batchnorm import _BatchNorm

from batchscape.data.dataset import Batch
from batchscape.data.spec import DataSpec
from batchscape.errors import UserError
from batchscape.tasks.compatibility import examples_are_independent
from batchscape.tasks.objective import Objective
from batchscape.training.distributed import ProcessGroup


def synchronize_batch_norm(objective: Objective, probe: Batch, data: DataSpec, process_group: ProcessGroup) -> None:
    """Make each BatchNorm of the network of an objective compute its statistics over the global batch, in place.

    `probe` is a batch of a few examples of `data`. Raises UserError if the network couples the examples
    of a batch in another way, which would then be over one process's shard only.
    """
    without_batch_norm = objective.copy()
    _replace_batch_norm(without_batch_norm.module, _to_identity)
    if not examples_are_independent(without_batch_norm, probe, data):
        raise UserError(
            "resources.devices: the network couples the examples of a batch other than through torch's BatchNorm, or "
            "keeps running statistics; it cannot be split over devices, so write `devices: 1`"
        )
    _replace_batch_norm(objective.module, lambda layer: GlobalBatchNorm(layer, process_group))


def _replace_batch_norm(network: nn.Module, replace: Callable[[_BatchNorm], nn.Module]) -> None:
    """Replace each BatchNorm layer whose forward pass is torch's own, under all of its names."""
    replaced: dict[nn.Module, nn.Module] = {}
    for path, child in list(network.named_modules(remove_duplicate=False)):
        if isinstance(child, _BatchNorm) and type(child).forward in (_BatchNorm.forward, nn.SyncBatchNorm.forward):
            replaced[child] = replaced.get(child) or replace(child)
        if path and child in replaced:
            parent, _, name = path.rpartition(".")
            setattr(network.get_submodule(parent), name, replaced[child])


class _Identity(_BatchNorm):
    """A BatchNorm that returns its input; attributes that a network may read remain."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs


def _to_identity(layer: _BatchNorm) -> nn.Module:
    layer.__class__ = _Identity
    return layer


class GlobalBatchNorm(_BatchNorm):
    """Ioffe & Szegedy 2015, algorithm 1, with the mean and the variance over the examples of all processes."""

    def __init__(self, original: _BatchNorm, process_group: ProcessGroup):
        super().__init__(
            original.num_features, original.eps, original.momentum, original.affine, original.track_running_stats
        )
        for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            setattr(self, name, getattr(original, name))  # None where the layer has none
        self.train(original.training)
        self.process_group = process_group

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Normalize inputs, (b, channels, …); b may be 0 in training."""
        mean, variance, num_batches = self.running_mean, self.running_var, self.num_batches_tracked
        if not self.training:
            return F.batch_norm(inputs, mean, variance, self.weight, self.bias, training=mean is None, eps=self.eps)
        dims = [0, *range(2, inputs.dim())]
        shape = [1, -1, *[1] * (inputs.dim() - 2)]
        inputs = inputs.float() if inputs.dtype == torch.bfloat16 else inputs  # sums over a batch need more than 8 bits
        size = torch.tensor(float(inputs.numel() // inputs.shape[1]), device=inputs.device)
        count = self.process_group.all_reduce(size)
        batch_mean = _AllReduceSum.apply(inputs.sum(dims), self.process_group) / count
        centered = inputs - batch_mean.view(shape)
        batch_variance = _AllReduceSum.apply(centered.square().sum(dims), self.process_group) / count
        if mean is not None and variance is not None and num_batches is not None:
            with torch.no_grad():
                num_batches += 1
                factor = 1 / num_batches if self.momentum is None else self.momentum
                mean += factor * (batch_mean - mean)
                variance += factor * (batch_variance * count / (count - 1) - variance)
        result = centered * (batch_variance + self.eps).rsqrt().view(shape)
        if self.weight is not None:
            result = result * self.weight.view(shape)
        return result if self.bias is None else result + self.bias.view(shape)


class _AllReduceSum(torch.autograd.Function):
    """The sum over all processes, each of whose losses depends on it."""

    @staticmethod
    def forward(context: Any, tensor: torch.Tensor, process_group: ProcessGroup) -> torch.Tensor:
        context.process_group = process_group
        return process_group.all_reduce(tensor.clone())

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return context.process_group.all_reduce(gradient.clone(memory_format=torch.contiguous_format)), None
