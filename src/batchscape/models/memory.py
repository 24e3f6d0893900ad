"""How many examples go through a network together."""

import gc
import logging
import math
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from batchscape.errors import is_out_of_memory

# What the largest tensors between two operations may take together: a share of a CPU's cache, or of a GPU's memory.
# With the network of Chang & Pathak 2020 on 128×128 pixels these 8 MiB are 16 images. One thread of an AMD EPYC with 1
# MiB of second and 32 MiB of third level cache takes, for a step of 256 images in parts of 4, 8, 16, 32, 64 and 256,
# 1.37, 1.11, 1, 0.95, 1.08 and 1.70 times the time; for one of 32 images in parts of 8, 16 and 32, 1.10, 1 and 1.15.
ACTIVATION_BYTES = {"cpu": 8 << 20, "cuda": 256 << 20}

Result = TypeVar("Result")

log = logging.getLogger(__name__)


def max_micro_batch_size(network: nn.Module, example: torch.Tensor) -> int:
    """Return how many examples a chunk may have, for the input and output of its largest operation to fit the cache.

    `example` is a few inputs, floats, (n, channels, height, width); they go through the network once, which must be in
    evaluation mode and on their device.
    """
    largest = 1

    def look(_: nn.Module, inputs: tuple, outputs: object) -> None:
        nonlocal largest
        tensors = [tensor for tensor in (*inputs, outputs) if isinstance(tensor, torch.Tensor)]
        largest = max(largest, math.ceil(sum(tensor.nbytes for tensor in tensors) / len(example)))

    # Of modules around others too: what is computed by functions between them is seen in no other way.
    hooks = [module.register_forward_hook(look) for module in network.modules()]
    try:
        with torch.no_grad():
            network(example)
    finally:
        for hook in hooks:
            hook.remove()
    return max(1, ACTIVATION_BYTES[example.device.type] // largest)


def saved_tensor_bytes(network: nn.Module, inputs: torch.Tensor) -> int:
    """Return how much memory autograd keeps for the gradient of a network at some inputs: activations and weights."""
    storages: dict[int, torch.UntypedStorage] = {}  # each once, however many operations save a view of it

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(inputs)
    return sum(storage.nbytes() for storage in storages.values())


def find_largest_fitting(size: int, compute: Callable[[int], Result]) -> tuple[int, Result]:
    """Return how many examples fit in memory at once, the first of size, size/2, size/4, …, and what they give.

    `compute`, called with such a number, may be left by an out-of-memory error at any point, so it must start from
    scratch each time. The error of a single example is raised.
    """
    while True:
        try:
            return size, compute(size)
        except (RuntimeError, MemoryError) as error:
            if size == 1 or not is_out_of_memory(error):
                raise
        # Outside of the handler, where the error no longer holds the tensors of the failed attempt.
        log.info("%d examples at once do not fit in memory; trying %d", size, size // 2)
        size //= 2
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
