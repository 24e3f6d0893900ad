"""Loss and accuracy of classification."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from batchscape.data.tensors import normalize_images
from batchscape.errors import UserError
from batchscape.models.memory import max_micro_batch_size


def num_outputs(loss: str, classes: int) -> int:
    """Return how many outputs per image a network has: one, the logit of class 1, or one per class.

    Args:
        loss: `training.loss`: `auto`, `binary_cross_entropy` or `cross_entropy`.
        classes: Number of classes.

    Raises:
        UserError: The loss is for another number of classes.
    """
    if loss == "binary_cross_entropy" and classes != 2:
        raise UserError(
            f"training.loss: binary_cross_entropy is for 2 classes, the data has {classes}; write `loss: cross_entropy`"
        )
    return 1 if classes == 2 and loss != "cross_entropy" else classes


def mean_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy, in nats.

    Args:
        logits: (n, 1), logits of class 1 of two, whose probability is the sigmoid, or (n, classes), whose
            probabilities are the softmax.
        labels: (n,), indices of classes.

    Returns:
        A scalar.
    """
    if logits.shape[1] == 1:
        return F.binary_cross_entropy_with_logits(logits.squeeze(1), labels.to(logits.dtype))
    return F.cross_entropy(logits, labels)


def summed_loss_and_correct(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the summed loss, in nats, and the number of correct predictions.

    The class with the largest probability is predicted; if two classes have ½ each, class 0.

    Args:
        logits: (n, outputs), as for `mean_loss`.
        labels: (n,), indices of classes.

    Returns:
        Both, (2,) float64, computed in float64.
    """
    logits = logits.double()
    loss = mean_loss(logits, labels) * len(labels)
    predicted = logits.squeeze(1) > 0 if logits.shape[1] == 1 else logits.argmax(1)
    return torch.stack([loss, (predicted == labels).sum().to(loss.dtype)])


def normalize_sums(sums: torch.Tensor, count: int) -> tuple[float, float]:
    """Return the mean loss and the accuracy.

    Args:
        sums: (2,), as returned by `summed_loss_and_correct`.
        count: Number of examples.

    Returns:
        The mean loss, in nats, and the accuracy, from 0 to 1. If the loss is nan, both are.
    """
    loss, accuracy = (sums / count).tolist()
    return loss, math.nan if math.isnan(loss) else accuracy


def loss_and_accuracy(logits: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    """Return the mean loss, in nats, and the accuracy of predictions, computed in float64.

    Args:
        logits: (n, outputs), as for `mean_loss`.
        labels: (n,), indices of classes.
    """
    return normalize_sums(summed_loss_and_correct(logits, labels), len(labels))


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


def evaluate_loss_and_correct(
    network: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor, chunk: int | None = None
) -> torch.Tensor:
    """Return the summed loss, in nats, of a network on a dataset, and the number of correct predictions.

    Args:
        network: The network; it is in evaluation mode during the call.
        images: (n, channels, height, width), uint8, on any device; n may be 0.
        labels: (n,), indices of classes, on the device of the network.
        chunk: Number of examples to evaluate at once; by default as many as fit in the processor's cache.

    Returns:
        Both, (2,) float64.
    """
    device = labels.device
    if not len(labels):
        return torch.zeros(2, dtype=torch.float64, device=device)
    with evaluation_mode(network), torch.no_grad():
        chunk = chunk or max_micro_batch_size(network, normalize_images(images[:4].to(device)))
        logits = torch.cat([network(normalize_images(part.to(device))) for part in images.split(chunk)])
    return summed_loss_and_correct(logits, labels)
