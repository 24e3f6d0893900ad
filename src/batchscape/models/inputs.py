"""What networks take: shapes of inputs, and examples of them."""

from typing import Any

import torch

from batchscape.data.spec import DataSpec
from batchscape.errors import UserError


def describe_inputs(spec: DataSpec) -> str:
    """Return what one input is, for messages, such as `images of shape (3, 32, 32)`."""
    match spec.inputs:
        case "images" | "numbers":
            return f"{spec.inputs} of shape {spec.shape}"
        case "tokens":
            return f"blocks of {spec.shape[0]} tokens"
        case "columns":
            return f"rows of {spec.shape[0]} numbers and {len(spec.categories)} categories"


def image_shape(spec: DataSpec, name: str) -> tuple[int, int, int]:
    """Return (channels, height, width) for a network that takes images, or numbers of such a shape, only.

    Args:
        spec: What an example is.
        name: Name of the network in the study file.

    Raises:
        UserError: The inputs have no such shape.
    """
    if spec.inputs not in ("images", "numbers") or len(spec.shape) != 3:
        other = "transformer" if spec.inputs == "tokens" else "mlp"
        raise UserError(
            f"model.name: {name} takes images, (channels, height, width), the data has {describe_inputs(spec)}; "
            f"write `name: {other}`"
        )
    channels, height, width = spec.shape
    return channels, height, width


def zero_inputs(spec: DataSpec, count: int) -> Any:
    """Return inputs that are all zero, of `count` examples: a tensor, or for `columns` a pair of tensors."""
    match spec.inputs:
        case "tokens":
            return torch.zeros(count, *spec.shape, dtype=torch.long)
        case "columns":
            return torch.zeros(count, *spec.shape), torch.zeros(count, len(spec.categories), dtype=torch.long)
        case _:
            return torch.zeros(count, *spec.shape)


def random_inputs(spec: DataSpec, count: int) -> Any:
    """Return random inputs of `count` examples: a tensor, or for `columns` a pair of tensors.

    Images are uniform in [0, 1], numbers standard normal, tokens and categories uniform. Like those of a dataset,
    images are channels-last in memory.
    """
    match spec.inputs:
        case "images":
            return torch.rand(count, *spec.shape).clone(memory_format=torch.channels_last)
        case "tokens":
            return torch.randint(spec.vocabulary, (count, *spec.shape))
        case "columns":
            columns = [torch.randint(categories, (count, 1)) for categories in spec.categories]
            return torch.randn(count, *spec.shape), torch.cat([torch.empty(count, 0, dtype=torch.long), *columns], 1)
        case _:
            return torch.randn(count, *spec.shape)


def random_targets(spec: DataSpec, count: int) -> torch.Tensor:
    """Return random targets of `count` examples, as those of a batch: uniform classes and tokens, normal numbers."""
    match spec.targets:
        case "class":
            return torch.randint(len(spec.classes), (count,))
        case "next_token":
            return torch.randint(spec.vocabulary, (count, *spec.shape))
        case "numbers":
            return torch.randn(count, *spec.target_shape)
