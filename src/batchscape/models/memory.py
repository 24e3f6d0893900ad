"""How many examples to send through a network at once."""

import gc
import logging
import math
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import nn

from batchscape.errors import is_out_of_memory

# Bytes that the input and output of the largest operation may take together: a part of a CPU's cache, or of a GPU's
# memory. For the network of Chang & Pathak 2020 with 128×128 pixels, 8 MiB are 16 images. Measured with one thread of
# an AMD EPYC (1 MiB of L2 and 32 MiB of L3 cache), a step with 256 images in micro-batches of 4, 8, 16, 32, 64 and 256
# takes 1.37, 1.11, 1, 0.95, 1.08 and 1.70 times as long; one with 32 images in micro-batches of 8, 16 and 32 takes
# 1.10, 1 and 1.15 times as long.
ACTIVATION_BYTES = {"cpu": 8 << 20, "cuda": 256 << 20}

Result = TypeVar("Result")

log = logging.getLogger(__name__)


def max_micro_batch_size(network: nn.Module, inputs: Any) -> int:
    """Return how many examples may go through a network at once for its largest operation to fit in the cache.

    Args:
        network: The network, in evaluation mode; it is called once.
        inputs: Those of a few examples, a tensor or a tuple of tensors, on the device of the network.

    Returns:
        The number of examples for which the input and output of the largest module take at most `ACTIVATION_BYTES`,
        at least 1.
    """
    max_bytes = 1
    first = inputs if isinstance(inputs, torch.Tensor) else inputs[0]

    def measure(_: nn.Module, arguments: tuple, outputs: object) -> None:
        nonlocal max_bytes
        num_bytes = sum(tensor.nbytes for tensor in _tensors((*arguments, outputs)))
        max_bytes = max(max_bytes, math.ceil(num_bytes / len(first)))

    # Containers are measured too: functions between modules are visible in no other way.
    hooks = [module.register_forward_hook(measure) for module in network.modules()]
    try:
        with torch.no_grad():
            network(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return max(1, ACTIVATION_BYTES[first.device.type] // max_bytes)


def _tensors(value: object) -> Iterator[torch.Tensor]:
    """Yield the tensors in tuples and lists."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _tensors(part)


def saved_tensor_bytes(network: nn.Module, inputs: Any) -> int:
    """Return how much memory autograd needs for the backward pass.

    Args:
        network: The network.
        inputs: Those of a batch, a tensor or a tuple of tensors.

    Returns:
        The bytes of all storages, activations and weights, that autograd saves in a forward pass.
    """
    storages: dict[int, torch.UntypedStorage] = {}  # counted once, however many operations save a view of it

    def save(tensor: torch.Tensor) -> torch.Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        network(inputs)
    return sum(storage.nbytes() for storage in storages.values())


def find_largest_fitting(size: int, compute: Callable[[int], Result]) -> tuple[int, Result]:
    """Call a function with size, size/2, size/4, … examples, until they fit in memory.

    Args:
        size: The first number of examples to try.
        compute: The function. An out-of-memory error may interrupt it at any point, so it must start from scratch in
            each call.

    Returns:
        The number of examples that fits, and the result of the function.

    Raises:
        RuntimeError: Any error that is not for lack of memory, or lack of memory for a single example.
        MemoryError: Lack of memory for a single example.
    """
    while True:
        try:
            return size, compute(size)
        except (RuntimeError, MemoryError) as error:
            if size == 1 or not is_out_of_memory(error):
                raise
        # Outside the handler, where the error no longer holds references to the tensors of the failed attempt.
        log.info("%d examples at once do not fit in memory; trying %d", size, size // 2)
        size //= 2
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
