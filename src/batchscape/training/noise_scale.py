"""The gradient noise scale: how much the gradients of single examples vary around their mean."""

import torch
from torch import nn

from batchscape.data.tensors import gather_examples, normalize_images
from batchscape.models.memory import max_micro_batch_size
from batchscape.tasks.compatibility import NUM_PROBE_EXAMPLES
from batchscape.tasks.losses import enable_backward, evaluation_mode, mean_loss

# Examples of each batch whose gradients are compared. Smaller batches give a more precise estimate and cost more: on
# the 1,437 digits, batches of 32, 64 and 128 give tr(Σ) within about 13, 20 and 30 % in 45, 30 and 20 ms.
BATCH_SIZE = 64


def estimate_noise_scale(
    network: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    order: torch.Tensor,
    batch_size: int = BATCH_SIZE,
    chunk: int | None = None,
) -> tuple[float, float]:
    """Return the gradient norm and the simple noise scale at a network's current weights.

    McCandlish et al. 2018, eq. 2.9: B_simple = tr(Σ) / ‖G‖², where G is the mean of the gradients of all n examples,
    and Σ their covariance (with n − 1). The trace is estimated from the gradients G_k of K batches of b_k examples, by
    the mean square between them:

        tr(Σ) ≈ Σ_k b_k·‖G_k − G‖² / (K − 1).

    Batches are drawn without replacement, so E‖G_k − G‖² = (1 − b_k/n)·tr(Σ)/b_k, and Σ_k (1 − b_k/n) = K − 1: the
    estimate is unbiased for any sizes, and exact for batches of one. With equal batches it is that of appendix A.1 with
    B_big = n. ‖G‖ itself is exact, since the mean loss over the n examples is the one that training minimizes.

    The network is in evaluation mode during the call; its weights, their gradients and all random states are
    unchanged. Sums are computed in float64.

    Args:
        network: The network, on the device of `labels`.
        images: Training images, uint8, (n, channels, height, width), on any device.
        labels: Their labels, int64, (n,).
        order: A random permutation of the examples, (n,), on any device; it is split into the batches.
        batch_size: Examples per batch; the last batch may be smaller.
        chunk: The most examples that go through the network at once; by default as many as fit in the processor's
            cache.

    Returns:
        ‖G‖, in nats per unit of weight, and B_simple, in examples.
    """
    size = max(1, min(batch_size, len(order) // 2))  # at least two batches
    device = labels.device
    order = order.to(images.device)
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    total = torch.zeros(sum(map(torch.numel, parameters)), dtype=torch.float64, device=device)
    squares = torch.zeros((), dtype=torch.float64, device=device)
    batches = order.split(size)
    with evaluation_mode(network), enable_backward(network), torch.enable_grad():
        chunk = chunk or max_micro_batch_size(network, normalize_images(images[:NUM_PROBE_EXAMPLES].to(device)))
        for batch in batches:
            gradient = torch.zeros_like(total)
            for indices in batch.split(chunk):
                outputs = network(normalize_images(gather_examples(images, indices, device)))
                loss = mean_loss(outputs, labels[indices.to(device)])
                gradients = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
                flat = torch.cat([tensor.reshape(-1) for tensor in gradients])
                gradient.add_(flat, alpha=len(indices) / len(batch))
            total += len(batch) * gradient
            squares += len(batch) * gradient.dot(gradient)
    squared_norm = (total / len(order)).square().sum()
    trace = (squares - len(order) * squared_norm) / (len(batches) - 1)
    return squared_norm.sqrt().item(), (trace / squared_norm).item()
