"""The device of a job, and the memory that it may use."""

import gc
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import torch

from batchscape.errors import UserError

# Fraction of the available GPU memory; the rest is for the CUDA context, fragmentation, and later steps.
MEMORY_FRACTION = 0.85
log = logging.getLogger(__name__)


def choose_device(accelerator: str) -> torch.device:
    """Return the device for `training.accelerator`: `auto`, `cpu` or `gpu`.

    With `auto`, a GPU for which this torch has no kernels is not used, and the log says why.

    Raises UserError if `gpu` is requested and none can be used, or if the driver fails.
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
    """Return why the first visible GPU cannot be used; empty if it can.

    Nothing is computed, because in a process that only starts others this would use memory of the GPU, or occupy one
    that accepts a single process.
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
    """Log a warning once per process."""
    log.warning(message)


def has_kernels(capability: tuple[int, int], built_for: Sequence[str]) -> bool:
    """Return whether a GPU with this compute capability can run the architectures that torch was built for.

    Binaries (`sm_80`) run on the same major version and the same or a later minor one, PTX (`compute_90`) on all later
    versions. Architectures with an `a`, such as `sm_90a`, run on exactly one version.
    """
    known = [name.partition("_") for name in built_for if name.startswith(("sm_", "compute_"))]
    if not known:  # not an NVIDIA build
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
    """Return how many bytes of GPU memory this process may use; infinity on a CPU.

    On a GPU, these are the bytes that other processes leave free, and at most 1 / `jobs_per_gpu` of the memory.
    """
    if device.type == "cpu":
        return math.inf
    free, total = torch.cuda.mem_get_info(device)
    return min(free + torch.cuda.memory_reserved(device), total / jobs_per_gpu)


def free_memory(device: torch.device, jobs_per_gpu: int = 1) -> float:
    """Return how many bytes of `available_memory` are free, after freeing those of earlier trainings."""
    if device.type == "cpu":
        return math.inf
    gc.collect()  # Lightning modules are in reference cycles, together with their images
    torch.cuda.empty_cache()
    return available_memory(device, jobs_per_gpu) - torch.cuda.memory_allocated(device)


@contextmanager
def limit_gpu_memory(device: torch.device, jobs_per_gpu: int = 1) -> Iterator[None]:
    """Limit the memory that torch allocates on a GPU to a fraction of the available memory while the block runs."""
    total = torch.cuda.mem_get_info(device)[1]
    limit = MEMORY_FRACTION * available_memory(device, jobs_per_gpu)
    torch.cuda.set_per_process_memory_fraction(limit / total, device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
