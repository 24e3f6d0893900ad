"""Section `model`: the network."""

from typing import Annotated, Literal

from pydantic import Field

from batchscape.config.base import AsTuple, PositiveInt, Section


class ModelConfig(Section):
    """The network that every run of the study trains."""

    name: Literal["vgg"] = "vgg"
    """`vgg`: blocks of 3×3 convolution, ReLU and 2×2 max-pooling, then dense layers and one logit
    (after Simonyan & Zisserman 2015)."""

    channels: Annotated[tuple[PositiveInt, ...], Field(min_length=1, examples=[[8, 16]]), AsTuple] = (8, 16)
    """Output channels of each convolution block; every block halves height and width."""

    dense: Annotated[tuple[PositiveInt, ...], Field(examples=[[32]]), AsTuple] = (32,)
    """Units of each hidden dense layer; `[]` for none."""
