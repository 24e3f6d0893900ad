"""The gradient noise scale: how much the gradients of single examples vary around their mean."""

import torch

from batchscape.data.dataset import Dataset
from batchscape.models.memory import max_micro_batch_size
from batchscape.models.parameters import flatten_tensors
from batchscape.tasks.compatibility import NUM_PROBE_EXAMPLES
from batchscape.tasks.modes import enable_backward, evaluation_mode
from batchscape.tasks.objective import Objective

# Examples of each batch whose gradients are compared. Smaller batches give a more precise estimate and cost more: on
# the 1,437 digits, batches of 32, 64 and 128 give tr(Σ) within about 13, 20 and 30 % in 45, 30 and 20 ms.
BATCH_SIZE = 64


def estimate_noise_scale(
    objective: Objective,
    data: Dataset,
    order: torch.Tensor,
    device: torch.device,
    weights: torch.Tensor | None = None,
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

    Where examples have weights, all means are weighted means, and b_k is the total weight of a batch divided by the
    mean weight of an example; for batches of one the trace is that of the weighted covariance.

    The network is in evaluation mode during the call; its weights, their gradients and all random states are
    unchanged. Sums are computed in float64.

    Args:
        objective: The network with its loss, on `device`.
        data: The training set, on any device.
        order: A random permutation of the examples, (n,), on any device; it is split into the batches.
        device: The device that computes.
        weights: The weight of each example, (n,), on the device of `data`; None if all are 1.
        batch_size: Examples per batch; the last batch may be smaller.
        chunk: The most examples that go through the network at once; by default as many as fit in the processor's
            cache.

    Returns:
        ‖G‖, in units of the loss per unit of weight, and B_simple, in examples.
    """
    size = max(1, min(batch_size, len(order) // 2))  # at least two batches
    order = order.to(data.storage)
    network = objective.module
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    total = torch.zeros(sum(map(torch.numel, parameters)), dtype=torch.float64, device=device)
    squares = torch.zeros((), dtype=torch.float64, device=device)
    total_weight = 0.0
    batches = order.split(size)
    with evaluation_mode(network), enable_backward(network), torch.enable_grad():
        probe = objective.network_inputs(data.batch(slice(NUM_PROBE_EXAMPLES), device))
        chunk = chunk or max_micro_batch_size(network, probe)
        for indices in batches:
            batch_weight = _total_weight(indices, weights)
            gradient = torch.zeros_like(total)
            for part in indices.split(chunk):
                loss = objective(data.batch(part, device)).loss
                gradients = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
                flat = flatten_tensors(gradients)
                gradient.add_(flat, alpha=_total_weight(part, weights) / batch_weight)
            total += batch_weight * gradient
            squares += batch_weight * gradient.dot(gradient)
            total_weight += batch_weight
    squared_norm = (total / total_weight).square().sum()
    mean_weight = total_weight / len(order)
    trace = (squares - total_weight * squared_norm) / (len(batches) - 1) / mean_weight
    return squared_norm.sqrt().item(), (trace / squared_norm).item()


def _total_weight(indices: torch.Tensor, weights: torch.Tensor | None) -> float:
    return float(len(indices)) if weights is None else weights[indices].sum().item()
