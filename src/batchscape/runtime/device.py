"""Where to compute."""

import gc
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import torch

from batchscape.errors import UserError

# Of the memory that a job can have on a GPU; the rest is for the CUDA context, fragments, and what later steps need.
MEMORY_MARGIN = 0.85
log = logging.getLogger(__name__)


def choose_device(accelerator: str) -> torch.device:
    """Return the device for `training.accelerator`: `auto`, `cpu` or `gpu`.

    A GPU for which this torch has no kernels is none: `auto` takes the CPU and logs why.

    Raises UserError if a GPU is asked for where there is none, and if there is one that the driver does not give.
    """
    if accelerator == "cpu":
        return torch.device("cpu")
    problem = _gpu_problem()
    if problem and accelerator == "gpu":
        raise UserError(f"training.accelerator: `gpu`, but {problem}; write `accelerator: auto`")
    if problem and torch.cuda.is_available():
        _warn_once(f"{problem}; this job computes on the CPU")
    return torch.device("cpu" if problem else "cuda")


@cache
def _gpu_problem() -> str:
    """Say why the GPU that this process sees first cannot be used; empty if it can.

    Nothing is computed for that: in a process that only starts others it would take memory of the GPU, or all of one
    that is for a single process.
    """
    if not torch.cuda.is_available():
        return "no CUDA GPU is available here"
    try:
        name, capability = torch.cuda.get_device_name(), torch.cuda.get_device_capability()
    except RuntimeError as error:
        first = str(error).partition("\n")[0]
        raise UserError(f"training.accelerator: the GPU cannot be used: {first}; free or repair it, or write `cpu`")
    built_for = torch.cuda.get_arch_list()
    if has_kernels(capability, built_for):
        return ""
    return (
        f"torch {torch.__version__} has no kernels for {name} of compute capability {'.'.join(map(str, capability))}, "
        f"only for {', '.join(built_for)}"
    )


@cache
def _warn_once(message: str) -> None:
    """Log a warning, once a process."""
    log.warning(message)


def has_kernels(capability: tuple[int, int], built_for: Sequence[str]) -> bool:
    """Say whether a GPU of a compute capability can run what torch was built for: `sm_80`, `compute_90`.

    Binaries run on the same major version from their minor one on, and PTX on all that came later. What has an `a`, as
    in `sm_90a`, runs on just one capability.
    """
    known = [name.partition("_") for name in built_for if name.startswith(("sm_", "compute_"))]
    if not known:  # not NVIDIA's
        return True
    for kind, _, version in known:
        number = version.rstrip("af")
        major, minor = built = int(number[:-1]), int(number[-1])
        if version.endswith("a"):
            fits = capability == built
        elif kind == "compute":
            fits = capability >= built
        else:
            fits = capability[0] == major and capability[1] >= minor
        if fits:
            return True
    return False


def available_memory(device: torch.device, jobs_per_gpu: int = 1) -> float:
    """Return how many bytes of a GPU's memory this process can have; infinitely many on a CPU.

    On a GPU that is what other processes leave free, and at most the share of a job if `jobs_per_gpu` use the GPU.
    """
    if device.type == "cpu":
        return math.inf
    free, total = torch.cuda.mem_get_info(device)
    return min(free + torch.cuda.memory_reserved(device), total / jobs_per_gpu)


def free_memory(device: torch.device, jobs_per_gpu: int = 1) -> float:
    """Return how many bytes of `available_memory` are not in use, once what an earlier training left is freed."""
    if device.type == "cpu":
        return math.inf
    gc.collect()  # Lightning's modules are in reference cycles, with their images
    torch.cuda.empty_cache()
    return available_memory(device, jobs_per_gpu) - torch.cuda.memory_allocated(device)


@contextmanager
def limit_gpu_memory(device: torch.device, jobs_per_gpu: int = 1) -> Iterator[None]:
    """Let torch allocate no more of a GPU inside the block than a margin below what this process can have."""
    total = torch.cuda.mem_get_info(device)[1]
    limit = MEMORY_MARGIN * available_memory(device, jobs_per_gpu)
    torch.cuda.set_per_process_memory_fraction(limit / total, device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
