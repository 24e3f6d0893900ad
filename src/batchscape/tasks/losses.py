"""What a network is trained for: the loss, and how many predictions are right."""

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
    """Return how many numbers a network gives for each image: one, the logit of class 1, or one a class.

    `loss` is `training.loss`. Raises UserError if it is for another number of classes.
    """
    if loss == "binary_cross_entropy" and classes != 2:
        raise UserError(
            f"training.loss: binary_cross_entropy is for 2 classes, the data has {classes}; write `loss: cross_entropy`"
        )
    return 1 if classes == 2 and loss != "cross_entropy" else classes


def mean_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy of predictions against labels, (n,), in nats.

    One logit, (n, 1), is that of class 1 of two: its sigmoid is the probability. Several, (n, classes), give
    probabilities by softmax.
    """
    if logits.shape[1] == 1:
        return F.binary_cross_entropy_with_logits(logits.squeeze(1), labels.to(logits.dtype))
    return F.cross_entropy(logits, labels)


def summed_loss_and_correct(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the summed loss of logits, (n, outputs), against labels, (n,), and how many are right: (2,), float64.

    The class of the greatest probability is predicted; of two at ½, class 0.
    """
    logits = logits.double()
    loss = mean_loss(logits, labels) * len(labels)
    predicted = logits.squeeze(1) > 0 if logits.shape[1] == 1 else logits.argmax(1)
    return torch.stack([loss, (predicted == labels).sum().to(loss.dtype)])


def normalize_sums(summed: torch.Tensor, count: int) -> tuple[float, float]:
    """Return the mean loss and the accuracy of `count` examples from their totals. Where the loss is nan both are."""
    loss, right = (summed / count).tolist()
    return loss, math.nan if math.isnan(loss) else right


def loss_and_accuracy(logits: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    """Return the mean loss and the accuracy of logits, (n, outputs), against labels, (n,), taken in float64."""
    return normalize_sums(summed_loss_and_correct(logits, labels), len(labels))


@contextmanager
def evaluation_mode(network: torch.nn.Module) -> Iterator[None]:
    """Have dropout off and BatchNorm with its running statistics for a while; then each module is as it was."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        network.train(modes[0][1])  # which a network of the user's own may do more in than set the modes
        for module, training in modes:
            module.training = training


@contextmanager
def enable_backward(network: torch.nn.Module) -> Iterator[None]:
    """Let a network in evaluation mode be differentiated for a while.

    cuDNN computes recurrent layers without what a backward pass in evaluation mode needs, and refuses it; torch's own
    kernels do not.
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
    """Let a network in evaluation mode be differentiated twice for a while: no kernel of fused attention can be."""
    with enable_backward(network), sdpa_kernel(SDPBackend.MATH):
        yield


def evaluate_loss_and_correct(
    network: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor, chunk: int | None = None
) -> torch.Tensor:
    """Return the summed loss of a network over a data set, and how many of its predictions are right: (2,), float64.

    `images` is uint8, (n, channels, height, width), on any device; `labels` is (n,), where the network is; n may be 0.
    The network is put in evaluation mode for the time of the call (dropout off, BatchNorm with its running statistics).
    `chunk` examples go through the network at once, by default as many as the processor's cache can take.
    """
    device = labels.device
    if not len(labels):
        return torch.zeros(2, dtype=torch.float64, device=device)
    with evaluation_mode(network), torch.no_grad():
        chunk = chunk or max_micro_batch_size(network, normalize_images(images[:4].to(device)))
        logits = torch.cat([network(normalize_images(part.to(device))) for part in images.split(chunk)])
    return summed_loss_and_correct(logits, labels)
