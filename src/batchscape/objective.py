"""What a network is trained for: the loss, and how many predictions are right."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn import functional as F

from batchscape.data.tensors import as_input


def mean_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the mean binary cross-entropy of σ(logits), (n, 1), against labels, (n,) in {0, 1}."""
    return F.binary_cross_entropy_with_logits(logits.squeeze(1), labels)


def loss_and_accuracy(logits: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    """Return the mean loss and the accuracy of logits, (n, 1), against labels, (n,), taken in float64.

    A probability above ½ predicts class 1. Where the loss is nan so is the accuracy.
    """
    logits, labels = logits.double(), labels.double()
    loss = mean_loss(logits, labels).item()
    right = ((logits.squeeze(1) > 0) == (labels > 0)).sum().item()
    return loss, math.nan if math.isnan(loss) else right / len(labels)


@contextmanager
def evaluation_mode(network: torch.nn.Module) -> Iterator[None]:
    """Have dropout off and BatchNorm with its running statistics for a while; then each module is as it was."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def evaluate(
    network: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor, chunk: int = 512
) -> tuple[float, float]:
    """Return the mean loss and the accuracy of a network over a data set, exactly: each example counts once.

    `images` is uint8, (n, channels, height, width); `labels` is (n,). The network is put in evaluation mode
    for the time of the call (dropout off, BatchNorm with its running statistics). `chunk` examples go through
    the network at once; the mean is taken in float64 over all n.
    """
    with evaluation_mode(network), torch.no_grad():
        logits = torch.cat([network(as_input(part)) for part in images.split(chunk)])
    return loss_and_accuracy(logits, labels)
