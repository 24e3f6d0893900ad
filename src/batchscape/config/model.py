"""Section `model`: the network."""

import math
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from batchscape.config.base import (
    Arguments,
    AsTuple,
    FromText,
    ImportPath,
    PositiveInt,
    Section,
    cross_field_error,
    tagged_union,
)

Dropout = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False, examples=[0.5]), FromText]
Normalization = Literal["none", "batch", "group"]
Dense = Annotated[tuple[PositiveInt, ...], Field(examples=[[32]]), AsTuple]
Channels = Annotated[tuple[PositiveInt, ...], Field(min_length=1, examples=[[8, 16]]), AsTuple]


class ModelSection(Section):
    """What all networks share: the selector."""

    selector: ClassVar[str] = "name"

    name: str

    @property
    def num_downsamplings(self) -> int:
        """How many times the network halves the height and width of its input, which must be at least one pixel
        after."""
        return 0


class VggConfig(ModelSection):
    """Blocks of 3×3 convolution, ReLU and 2×2 max-pooling, then dense layers (after Simonyan & Zisserman 2015)."""

    name: Literal["vgg"] = "vgg"
    """The network."""

    channels: Channels = (8, 16)
    """Output channels of each convolution block; every block halves height and width."""

    convolutions: Annotated[PositiveInt, Field(examples=[1])] = 1
    """Convolutions in each block."""

    dense: Dense = (32,)
    """Units of each hidden dense layer; `[]` for none."""

    normalization: Normalization = "none"
    """After each convolution: `none`, `batch` (BatchNorm, Ioffe & Szegedy 2015) or `group` (GroupNorm, Wu & He 2018,
    with 8 groups, or as many as divide the channels)."""

    dropout: Dropout = 0.0
    """Share of the inputs of each dense layer that is dropped in training (Srivastava et al. 2014)."""

    @property
    def num_downsamplings(self) -> int:
        return len(self.channels)


class MlpConfig(ModelSection):
    """Dense layers with ReLU over all pixels or numbers: a multilayer perceptron. A categorical column of k categories,
    with that of unknown values, has an embedding of min(50, ⌈k/2⌉) dimensions beside the numbers."""

    name: Literal["mlp"]
    """The network."""

    dense: Dense = (128, 64)
    """Units of each hidden dense layer; `[]` for none, which is logistic or linear regression."""

    dropout: Dropout = 0.0
    """Share of the inputs of each dense layer but the first that is dropped in training."""


class ResNetConfig(ModelSection):
    """A small residual network for small images (He et al. 2016, section 4.2): a 3×3 convolution, stages of blocks of
    two 3×3 convolutions, the mean over all pixels, and one dense layer."""

    name: Literal["resnet"]
    """The network."""

    channels: Channels = (16, 32, 64)
    """Channels of each stage; every stage but the first halves height and width."""

    blocks: Annotated[PositiveInt, Field(examples=[1])] = 1
    """Blocks in each stage: 3 with the default channels is ResNet-20."""

    normalization: Literal["batch", "group"] = "batch"
    """After each convolution: `batch` (BatchNorm) or `group` (GroupNorm with 8 groups, or as many as divide the
    channels)."""

    @property
    def num_downsamplings(self) -> int:
        return len(self.channels) - 1


class TransformerConfig(ModelSection):
    """A transformer on tokens, or on sequences of numbers: blocks of self-attention and an MLP with GELU, each after
    LayerNorm and added to its input (pre-norm, as in GPT-2). For the next token it is a decoder, in which no position
    sees a later one; for one target per example, all positions see each other and the outputs are those of their mean.
    The defaults give a model of bytes with some 85,000 parameters."""

    name: Literal["transformer"]
    """The network."""

    depth: Annotated[PositiveInt, Field(examples=[2])] = 2
    """Number of blocks."""

    width: Annotated[PositiveInt, Field(examples=[48])] = 48
    """Size of the embeddings and of what blocks pass on; the MLPs have four times as many hidden units."""

    heads: Annotated[PositiveInt, Field(examples=[3])] = 3
    """Attention heads of each block; their number divides `width`."""

    context: Annotated[PositiveInt | None, Field(examples=[64])] = None
    """Number of positions, each with a learned embedding; by default the length of the data's sequences."""

    dropout: Dropout = 0.0
    """Share of the embeddings, of the attention weights and of the output of each attention and MLP that is dropped in
    training."""

    @model_validator(mode="after")
    def _check_heads(self) -> Self:
        if self.width % self.heads:
            raise cross_field_error(
                "heads",
                f"{self.heads} heads do not divide a width of {self.width}; write a divisor, or `width: "
                f"{math.ceil(self.width / self.heads) * self.heads}`",
            )
        return self


class CustomModelConfig(ModelSection):
    """A custom network, given by its import path."""

    name: ImportPath
    """`my_package.my_module:Net` or `timm:create_model`, a class or function that returns a `torch.nn.Module`. It may
    request `outputs` (how many numbers for each example, or for each position of the next token), `shape` (of one
    input; `image_shape` is the same), `vocabulary` and `length` of tokens, and `categories` of columns by having
    parameters of these names. The module is in the folder where the workflow runs, or installed. The network
    initializes its own weights."""

    arguments: Annotated[Arguments, Field(examples=[{"width": 16, "num_classes": "$outputs"}])]
    """Keyword arguments. A text that is `$outputs`, `$shape`, `$features`, `$channels`, `$height`, `$width`,
    `$vocabulary`, `$length` or `$categories`, also in a list or mapping, is replaced by the value that the data has."""


ModelConfig = tagged_union(
    "name",
    {"vgg": VggConfig, "mlp": MlpConfig, "resnet": ResNetConfig, "transformer": TransformerConfig},
    CustomModelConfig,
    "import path `my_package.my_module:Net`",
)


def model_module(name: str, has_own_loss: bool = False) -> str:
    """Return the module that builds the network of a name or import path; jobs depend on that network's code alone."""
    custom = "lightning" if has_own_loss else "custom"
    return f"batchscape.models.{custom if ':' in name else name}"
