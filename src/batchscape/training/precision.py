"""Lower precision of the forward and the backward pass of training."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def tf32(enabled: bool) -> Iterator[None]:
    """Let matrix products and convolutions on GPUs use TF32 or not while the block runs, and restore it afterwards.

    Args:
        enabled: Whether they round their inputs to ten bits of mantissa.
    """
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = enabled
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


class Autocast(nn.Module):
    """A network whose forward pass runs in bfloat16 where torch's autocast does so; its outputs are float32.

    Args:
        network: The network, with float32 weights.
        device_type: Where it runs, `cpu` or `cuda`.
    """

    def __init__(self, network: nn.Module, device_type: str):
        super().__init__()
        self.network = network
        self.device_type = device_type

    def forward(self, inputs: Any) -> torch.Tensor:
        """Return the outputs of the network, float32."""
        with torch.autocast(self.device_type, torch.bfloat16):
            outputs: torch.Tensor = self.network(inputs)
        return outputs.float()
