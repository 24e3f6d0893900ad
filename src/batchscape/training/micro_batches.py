"""The gradient of a global batch, summed over parts of it that fit the processor's cache."""

from collections.abc import Iterable

import torch
from torch import nn

from batchscape.tasks.losses import mean_loss

Part = tuple[torch.Tensor, torch.Tensor]
"""Inputs, floats, (b, channels, height, width), and labels, (b,)."""


def backward(network: nn.Module, parts: Iterable[Part], count: int) -> list[torch.Tensor]:
    """Add the gradient of the mean loss over a global batch to `.grad` of the parameters; return each part's logits.

    `count` is how many examples the batch has. The gradient is exact: each part adds that of its mean loss, times its
    share of the batch. The activations of one part are in memory at a time. A part without examples adds nothing,
    but goes through the network and back, as BatchNorm asks for that sums over processes.
    """
    logits = []
    for inputs, labels in parts:
        outputs = network(inputs)
        loss = mean_loss(outputs, labels) if len(labels) else outputs.sum()
        loss.backward(torch.full_like(loss, len(labels) / count))
        logits.append(outputs.detach())
    return logits
