"""Layers that several networks have."""

from collections import OrderedDict

from torch import nn

# Wu & He 2018 use 32 groups for 64 channels and more; networks here begin at 4.
GROUPS = 8


def dense_layers(
    features: int, hidden: tuple[int, ...], outputs: int, dropout: float, first_drops: bool
) -> OrderedDict[str, nn.Module]:
    """Return dense layers with ReLU between them, by name; with dropout before each, `first_drops`: the first too."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    sizes = [features, *hidden]
    names = [*(f"dense{index}" for index in range(1, len(hidden) + 1)), "output"]
    for name, size, units in zip(names, sizes, [*hidden, outputs], strict=True):
        if dropout and (first_drops or name != names[0]):
            layers[f"{name}_dropout"] = nn.Dropout(dropout)
        layers[name] = nn.Linear(size, units)
        if name != "output":
            layers[f"{name}_relu"] = nn.ReLU()
    return layers


def normalization(kind: str, channels: int) -> nn.Module:
    """Return BatchNorm (`batch`), or GroupNorm (`group`) with 8 groups or the most below that divide the channels."""
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    return nn.GroupNorm(max(groups for groups in range(1, GROUPS + 1) if channels % groups == 0), channels)
