"""The processes that train a run together, and what they sum over one another."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn


class PeerDisconnected(Exception):
    """Another of the processes is gone; that one knows why."""


@dataclass(frozen=True)
class ProcessGroup:
    """This process among those that train a run together; by default it is alone."""

    rank: int = 0
    size: int = 1

    @property
    def is_main_process(self) -> bool:
        """Whether this is the process that writes and logs."""
        return self.rank == 0

    def shard(self, count: int) -> slice:
        """Return which of `count` things are this process's: shares follow one another and differ by one at most."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        """Put into a tensor the sum over all processes, and return it; the same bits come out in each of them.

        Raises PeerDisconnected if another process is gone.
        """
        if self.size > 1:
            try:
                dist.all_reduce(tensor)
            except RuntimeError as error:
                raise PeerDisconnected(str(error)) from error
        return tensor

    def all_reduce_gradients(self, parameters: Sequence[nn.Parameter], used: Sequence[bool]) -> None:
        """Put into `.grad` of the parameters that are used the sum over all processes; the others get none.

        A process without a share of a batch has no gradients to give.
        """
        flat = torch.cat(
            [(torch.zeros_like(each) if each.grad is None else each.grad).reshape(-1) for each in parameters]
        )
        self.all_reduce(flat)
        for parameter, part, is_used in zip(
            parameters, flat.split([each.numel() for each in parameters]), used, strict=True
        ):
            # In the memory layout of the parameter, as the optimiser wants it.
            parameter.grad = torch.empty_like(parameter).copy_(part.view(parameter.shape)) if is_used else None

    def has_gradient(self, parameters: Sequence[nn.Parameter]) -> list[bool]:
        """Return which parameters have a gradient, in whichever process."""
        flags = torch.tensor([each.grad is not None for each in parameters], dtype=torch.float32)
        return [flag > 0 for flag in self.all_reduce(flags.to(parameters[0].device)).tolist()]

    def assert_initialized(self) -> None:
        """Raise RuntimeError unless the process group is of these processes.

        Else each would train on its share alone and nothing would seem wrong.
        """
        found = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        if found != (self.rank, self.size):
            raise RuntimeError(f"process {self.rank} of {self.size} finds itself as {found[0]} of {found[1]}")
