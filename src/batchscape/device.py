"""Where to compute."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from batchscape.errors import UserError

# Of the memory that a job can have on a GPU; the rest is for the CUDA context, fragments, and what later steps need.
MEMORY_MARGIN = 0.85


def choose_device(accelerator: str) -> torch.device:
    """Return the device for `training.accelerator`: `auto`, `cpu` or `gpu`.

    Raises UserError if a GPU is asked for where there is none.
    """
    available = torch.cuda.is_available()
    if accelerator == "gpu" and not available:
        raise UserError("training.accelerator: `gpu`, but no CUDA GPU is available here; write `accelerator: auto`")
    return torch.device("cuda" if available and accelerator != "cpu" else "cpu")


def available_memory(device: torch.device, jobs_per_gpu: int = 1) -> float:
    """Return how many bytes of a GPU's memory this process can have; infinitely many on a CPU.

    On a GPU that is what other processes leave free, and at most the share of a job if `jobs_per_gpu` use the GPU.
    """
    if device.type == "cpu":
        return math.inf
    free, total = torch.cuda.mem_get_info(device)
    return min(free + torch.cuda.memory_reserved(device), total / jobs_per_gpu)


@contextmanager
def memory_margin(device: torch.device, jobs_per_gpu: int = 1) -> Iterator[None]:
    """Let torch allocate no more of a GPU inside the block than a margin below what this process can have."""
    total = torch.cuda.mem_get_info(device)[1]
    limit = MEMORY_MARGIN * available_memory(device, jobs_per_gpu)
    torch.cuda.set_per_process_memory_fraction(limit / total, device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
