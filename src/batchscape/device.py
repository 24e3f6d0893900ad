"""Where to compute."""

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


@contextmanager
def memory_margin(device: torch.device, jobs_per_gpu: int = 1) -> Iterator[None]:
    """Let torch allocate only part of a GPU's memory inside the block: a margin less than this job can have.

    That is what other processes leave free, and at most the job's share if `jobs_per_gpu` use the GPU.
    """
    free, total = torch.cuda.mem_get_info(device)
    available = min(free + torch.cuda.memory_reserved(device), total / jobs_per_gpu)
    torch.cuda.set_per_process_memory_fraction(MEMORY_MARGIN * available / total, device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
