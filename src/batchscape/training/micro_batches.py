"""The gradient of a global batch, accumulated over micro-batches."""

from collections.abc import Iterable

import torch
from torch import nn

from batchscape.tasks.losses import mean_loss

MicroBatch = tuple[torch.Tensor, torch.Tensor]
"""Inputs, floats, (b, channels, height, width), and labels, (b,)."""


def backward(network: nn.Module, micro_batches: Iterable[MicroBatch], count: int) -> list[torch.Tensor]:
    """Add the gradient of the mean loss over a global batch to `.grad` of the parameters.

    The gradient is exact: each micro-batch adds that of its mean loss, times its fraction of the batch. Only one
    micro-batch has its activations in memory at a time. One without examples adds zeros, but runs the forward and the
    backward pass, as a BatchNorm that sums over processes requires.

    Args:
        network: The network, in training mode.
        micro_batches: The parts of the batch, or of this process's shard of it.
        count: Number of examples of the global batch.

    Returns:
        The logits of each micro-batch, detached.
    """
    logits = []
    for inputs, labels in micro_batches:
        outputs = network(inputs)
        loss = mean_loss(outputs, labels) if len(labels) else outputs.sum()
        loss.backward(torch.full_like(loss, len(labels) / count))
        logits.append(outputs.detach())
    return logits
