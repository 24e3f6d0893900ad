"""The processes that train a run together, and the sums that they compute over one another."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn


class PeerDisconnected(Exception):
    """Another process of the group has ended; its own error is the cause."""


@dataclass(frozen=True)
class ProcessGroup:
    """The place of this process among those that train a run together; by default it is the only one."""

    rank: int = 0
    size: int = 1

    @property
    def is_main_process(self) -> bool:
        """Whether this is the process that writes and logs."""
        return self.rank == 0

    def shard(self, count: int) -> slice:
        """Return this process's shard of a batch.

        Args:
            count: Number of examples of the batch.

        Returns:
            The indices of the shard. Shards are contiguous, in the order of the ranks, and differ in size by at most 1.
        """
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum a tensor over all processes, in place; every process gets the same bits.

        Args:
            tensor: This process's summand, of any shape.

        Returns:
            `tensor`.

        Raises:
            PeerDisconnected: Another process has ended.
        """
        if self.size > 1:
            try:
                dist.all_reduce(tensor)
            except RuntimeError as error:
                raise PeerDisconnected(str(error)) from error
        return tensor

    def all_reduce_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Sum the gradients of parameters over all processes, in place.

        Args:
            parameters: The parameters. A process whose shard is empty, or that skips a layer, adds zeros. Where no
                process has a gradient, it stays None.
        """
        has_gradient = [parameter.grad is not None for parameter in parameters]
        gradients = [
            (torch.zeros_like(parameter) if parameter.grad is None else parameter.grad).reshape(-1)
            for parameter in parameters
        ]
        flat = torch.cat([*gradients, torch.tensor(has_gradient).to(gradients[0])])
        self.all_reduce(flat)
        *sums, counts = flat.split([*(parameter.numel() for parameter in parameters), len(parameters)])
        if not all(has_gradient):  # otherwise nothing is read from the device, which would wait for it
            has_gradient = (counts > 0).tolist()
        for parameter, total, is_used in zip(parameters, sums, has_gradient, strict=True):
            # In the memory layout of the parameter, as the fused optimizer requires.
            parameter.grad = torch.empty_like(parameter).copy_(total.view(parameter.shape)) if is_used else None

    def assert_initialized(self) -> None:
        """Check that torch's process group has this rank and size.

        Otherwise each process would silently train on its shard alone.

        Raises:
            RuntimeError: torch's process group is another one, or is not initialized.
        """
        rank, size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        if (rank, size) != (self.rank, self.size):
            raise RuntimeError(f"expected rank {self.rank} of {self.size}, but torch.distributed has {rank} of {size}")
