"""Layers that several networks use."""

from collections import OrderedDict

from torch import nn

# Wu & He 2018 use 32 groups for 64 and more channels; networks here have as few as 4.
MAX_GROUPS = 8
# With fewer channels than a vector of AVX2 has floats, the backward pass of a channels-last 1×1 convolution with a
# stride writes beyond its buffers on a CPU, and the process crashes (oneDNN 3.12, in torch 2.13).
VECTOR_WIDTH = 8


def make_dense_layers(
    features: int, hidden: tuple[int, ...], outputs: int, dropout: float, dropout_first: bool
) -> OrderedDict[str, nn.Module]:
    """Return dense layers with ReLU in between, by name, with dropout before each; `dropout_first`: the first too."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    sizes = [features, *hidden]
    names = [*(f"dense{index}" for index in range(1, len(hidden) + 1)), "output"]
    for name, size, units in zip(names, sizes, [*hidden, outputs], strict=True):
        if dropout and (dropout_first or name != names[0]):
            layers[f"{name}_dropout"] = nn.Dropout(dropout)
        layers[name] = nn.Linear(size, units)
        if name != "output":
            layers[f"{name}_relu"] = nn.ReLU()
    return layers


def make_norm_layer(kind: str, channels: int) -> nn.Module:
    """Return BatchNorm (`batch`), or GroupNorm (`group`) with 8 groups or the largest divisor of `channels` below."""
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    return nn.GroupNorm(max(groups for groups in range(1, MAX_GROUPS + 1) if channels % groups == 0), channels)


def initialize_glorot_uniform(network: nn.Module) -> None:
    """Initialize the weights of all convolutions and dense layers (Glorot & Bengio 2010, eq. 16); biases are zero."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def crashes_in_channels_last(module: nn.Module) -> bool:
    """Return whether the backward pass of a layer may crash with channels-last memory on a CPU."""
    return (
        isinstance(module, nn.Conv2d)
        and module.kernel_size == (1, 1)
        and max(module.stride) > 1
        and module.groups == 1
        and module.in_channels < VECTOR_WIDTH
    )
