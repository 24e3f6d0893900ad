"""The gradient noise scale: how much the gradients of single examples differ, against their mean."""

import torch
from torch import nn

from batchscape.data.tensors import gather_examples, normalize_images
from batchscape.models.memory import max_micro_batch_size
from batchscape.tasks.losses import enable_backward, evaluation_mode, mean_loss

# Examples of the batches whose gradients are compared. With smaller ones the estimate would be closer and cost more: of
# the 1,437 digits, batches of 32, 64 and 128 give tr(Σ) to about 13, 20 and 30 % in 45, 30 and 20 ms.
BATCH = 64


def gradient_noise(
    network: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    order: torch.Tensor,
    batch: int = BATCH,
    chunk: int | None = None,
) -> tuple[float, float]:
    """Return ‖G‖ (nats per unit of weight) and B_simple = tr(Σ)/‖G‖² (examples) at a network's present weights.

    As in McCandlish et al. 2018, eq. 2.9: G is the mean of the gradients of all n examples, and Σ their covariance
    (with n − 1). Its trace is estimated from the gradients G_k of K batches of b_k examples, as the mean square
    between them:

        tr(Σ) ≈ Σ_k b_k·‖G_k − G‖² / (K − 1).

    `order`, a random permutation, (n,), is cut into `batch` examples each; the last batch may be shorter. Drawn
    without replacement, b of n examples have E‖G_k − G‖² = (1 − b/n)·tr(Σ)/b, and Σ_k (1 − b_k/n) = K − 1: so the
    estimate is unbiased whatever the sizes, and exact for batches of one. With equal batches it is that of appendix
    A.1 with B_big = n. ‖G‖ is that of all n examples itself, for theirs is the loss that training minimises.

    `images` is uint8, (n, channels, height, width), on any device, and so is `order`; `labels`, int64, (n,), is where
    the network is. The network is in evaluation mode for the time of the call; its weights, their gradients and all
    random states stay as they are. `chunk` examples at most go through it at once, by default as many as the
    processor's cache can take. Sums are taken in float64.
    """
    size = max(1, min(batch, len(order) // 2))  # at least two batches
    device = labels.device
    order = order.to(images.device)
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    total = torch.zeros(sum(map(torch.numel, parameters)), dtype=torch.float64, device=device)
    squares = torch.zeros((), dtype=torch.float64, device=device)
    batches = order.split(size)
    with evaluation_mode(network), enable_backward(network), torch.enable_grad():
        chunk = chunk or max_micro_batch_size(network, normalize_images(images[:4].to(device)))
        for examples in batches:
            gradient = torch.zeros_like(total)
            for part in examples.split(chunk):
                loss = mean_loss(
                    network(normalize_images(gather_examples(images, part, device))), labels[part.to(device)]
                )
                gradients = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
                gradient.add_(torch.cat([tensor.reshape(-1) for tensor in gradients]), alpha=len(part) / len(examples))
            total += len(examples) * gradient
            squares += len(examples) * gradient.dot(gradient)
    square = (total / len(order)).square().sum()
    trace = (squares - len(order) * square) / (len(batches) - 1)
    return square.sqrt().item(), (trace / square).item()
