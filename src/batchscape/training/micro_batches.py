"""The gradient of a global batch, accumulated over micro-batches."""

from collections.abc import Iterable
from typing import Any

import torch

from batchscape.data.dataset import Batch
from batchscape.tasks.objective import Objective


def backward(objective: Objective, micro_batches: Iterable[Batch], total_weight: float | torch.Tensor) -> list[Any]:
    """Add the gradient of the mean loss over a global batch to `.grad` of the parameters.

    The gradient is exact: each micro-batch adds that of its mean loss, times its fraction of the weight of the batch.
    Only one micro-batch has its activations in memory at a time. One without examples adds zeros, but runs the forward
    and the backward pass, as a BatchNorm that sums over processes requires.

    Args:
        objective: The network with its loss, in training mode.
        micro_batches: The parts of the batch, or of this process's shard of it.
        total_weight: Sum of the weights of the examples of the global batch; their number if all weights are 1.

    Returns:
        The record of each micro-batch.
    """
    records = []
    for batch in micro_batches:
        loss, record = objective(batch)
        weights = objective.example_weights(batch)
        weight = len(batch) if weights is None else weights.sum()
        loss.backward(torch.as_tensor(weight / total_weight, dtype=loss.dtype, device=loss.device))
        records.append(record)
    return records
