"""Parameters and gradients of a network as one vector."""

from collections.abc import Sequence

import torch
from torch import Tensor


def flatten_tensors(tensors: Sequence[Tensor]) -> Tensor:
    """Return all values of tensors as one vector."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])
