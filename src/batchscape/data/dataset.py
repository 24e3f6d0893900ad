"""Datasets, and the batches that networks and losses see."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from batchscape.data.spec import DataSpec

# Share of a GPU's free memory that the examples may take; the rest is for the computation.
RESIDENT_MEMORY_FRACTION = 0.5


@dataclass(frozen=True)
class Batch:
    """Some examples on the device that computes, ready for the network."""

    inputs: Any
    """A tensor, or a tuple of tensors; the first axis is the example."""

    targets: Tensor
    """(b, …); the first axis is the example."""

    weights: Tensor | None = None
    """Weights of the loss; their shape is a prefix of that of the targets. None: all are 1."""

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.targets)

    def to(self, dtype: torch.dtype) -> "Batch":
        """Return the batch with inputs that are not indices in another data type."""
        inputs = map_inputs(lambda part: part.to(dtype) if part.is_floating_point() else part, self.inputs)
        return Batch(inputs, self.targets, self.weights)

    def split(self, sizes: int | Sequence[int]) -> "list[Batch]":
        """Return parts of the batch, of the given size or sizes, like `torch.split`."""
        targets = self.targets.split(sizes)
        inputs = split_inputs(self.inputs, sizes)
        weights = [None] * len(targets) if self.weights is None else self.weights.split(sizes)
        return list(map(Batch, inputs, targets, weights))


def slices(count: int, size: int) -> list[slice]:
    """Return slices of `size` that cover `count` examples; the last one may be smaller."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def input_tensors(inputs: Any) -> tuple[Tensor, ...]:
    """Return the tensors of inputs, a tensor or a tuple of tensors."""
    return (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)


def map_inputs(function: Callable[[Tensor], Tensor], inputs: Any) -> Any:
    """Return inputs, a tensor or a tuple of tensors, with a function applied to each tensor."""
    return function(inputs) if isinstance(inputs, Tensor) else tuple(map(function, inputs))


def split_inputs(inputs: Any, sizes: int | Sequence[int]) -> list[Any]:
    """Return the parts of inputs, a tensor or a tuple of tensors, that `torch.split` gives of each tensor."""
    if isinstance(inputs, Tensor):
        return list(inputs.split(sizes))
    return list(zip(*(part.split(sizes) for part in inputs), strict=True))


class Dataset:
    """One side of the prepared data.

    Attributes:
        spec: What an example is.
        arrays: As stored, first axis example: `inputs`, and where there are any, `categories`, `targets` and `weights`.
            Images are (n, height, width, channels); tokens are (n, length + 1) and contain the targets if these are
            the next tokens.
    """

    def __init__(self, spec: DataSpec, arrays: Mapping[str, Tensor]):
        self.spec = spec
        self.arrays = arrays

    @classmethod
    def from_numpy(cls, spec: DataSpec, arrays: Mapping[str, np.ndarray]) -> Self:
        """Return a dataset that shares the memory, or the mapped file, of NumPy arrays."""
        return cls(spec, {name: torch.from_numpy(array) for name, array in arrays.items()})

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.arrays["inputs"])

    @property
    def num_bytes(self) -> int:
        """Bytes of all arrays as stored."""
        return sum(array.nbytes for array in self.arrays.values())

    @property
    def storage(self) -> torch.device:
        """The device that stores the arrays, on which indices of examples must be."""
        return self.arrays["inputs"].device

    def to(self, device: torch.device) -> "Dataset":
        """Return the dataset with its arrays on a device."""
        return Dataset(self.spec, {name: array.to(device) for name, array in self.arrays.items()})

    def __getitem__(self, rows: slice | Tensor) -> "Dataset":
        """Return some of the examples; a slice shares memory, indices (on the device `storage`) copy."""
        if isinstance(rows, slice):
            return Dataset(self.spec, {name: array[rows] for name, array in self.arrays.items()})
        return Dataset(self.spec, {name: array.index_select(0, rows) for name, array in self.arrays.items()})

    def batch(
        self,
        indices: Tensor | slice,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        transform: Callable[[Tensor], Tensor] | None = None,
    ) -> Batch:
        """Return examples as the network takes them.

        Args:
            indices: Indices of examples, (b,), on the device `storage`, or a slice.
            device: The device that computes.
            dtype: Data type of inputs that are not indices.
            transform: Applied to stored images, (b, channels, height, width), on `device`, such as an augmentation.

        Returns:
            The batch. Images are channels-last in memory.
        """
        stored = {
            # Copies, for networks may write into their inputs, and the arrays may be a file mapped read-only. Of
            # channels-last images `index_select` copies image by image.
            name: (array[indices].clone() if isinstance(indices, slice) else array.index_select(0, indices)).to(device)
            for name, array in self.arrays.items()
        }
        inputs: Any = stored["inputs"]
        targets = stored.get("targets")
        match self.spec.inputs:
            case "images":
                images = inputs.permute(0, 3, 1, 2)
                inputs = convert_images(transform(images) if transform else images, dtype)
            case "tokens":
                inputs = inputs.long()
                if self.spec.targets == "next_token":
                    inputs, targets = inputs[:, :-1], inputs[:, 1:].clone()
            case "columns":
                inputs = inputs.to(dtype), stored["categories"].long()
            case "numbers":
                inputs = inputs.to(dtype)
        assert targets is not None
        return Batch(inputs, targets, stored.get("weights"))


def convert_images(images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return images, (n, channels, height, width), as floats, channels-last in memory; uint8 is divided by 255."""
    floats = images.to(dtype, memory_format=torch.channels_last)
    return floats.div_(255) if images.dtype == torch.uint8 else floats


def storage_device(num_bytes: int, device: torch.device, free_bytes: float | None = None) -> torch.device:
    """Return where to store examples of `num_bytes` for a device that computes with them.

    That is the device itself if they take at most half of its `free_bytes` (by default those that a GPU reports),
    otherwise host memory.
    """
    if free_bytes is None:
        free_bytes = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else math.inf
    return device if num_bytes <= RESIDENT_MEMORY_FRACTION * free_bytes else torch.device("cpu")
