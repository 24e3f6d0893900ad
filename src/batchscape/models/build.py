"""Networks by name or import path, and their initial weights."""

import copy
import inspect
from collections import OrderedDict
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from batchscape.config.model import MlpConfig, ModelConfig, OwnModelConfig, ResNetConfig, VggConfig
from batchscape.errors import UserError, is_out_of_memory
from batchscape.runtime.randomness import seeded
from batchscape.runtime.user_code import called, imported, told

ImageShape = tuple[int, int, int]
"""(channels, height, width) of what a network takes."""

# Wu & He 2018 use 32 groups for 64 channels and more; networks here begin at 4.
GROUPS = 8


def build_network(config: ModelConfig, image_shape: ImageShape, outputs: int, seed: int) -> nn.Module:
    """Return the configured network with the initial weights that all runs of one seed share.

    It takes (n, *image_shape) float in [0, 1] and gives logits, (n, outputs); sigmoid or softmax stands in the loss,
    where it is numerically stable. Weights of the networks here are Glorot-uniform (Glorot & Bengio 2010, eq. 16),
    biases zero, as in Chang & Pathak 2020; one of the user's own keeps what it makes. They are a function of the
    arguments alone; the caller's random states are left as they were. Weights of convolutions lie channels-last in
    memory, as the input does, so that convolutions make no copies; a network that cannot take that has both contiguous.

    Raises UserError when the network does not go with such images, or the user's own cannot be made.
    """
    with torch.random.fork_rng(devices=[]), seeded(seed):
        torch.manual_seed(seed)
        if isinstance(config, OwnModelConfig):
            return own_network(config, image_shape, outputs)
        build = {VggConfig: vgg, MlpConfig: mlp, ResNetConfig: resnet}[type(config)]
        smallest = 2**config.halvings
        if min(image_shape[1:]) < smallest:
            raise UserError(
                f"model.channels: the network halves the images {config.halvings} times and needs at least "
                f"{smallest}×{smallest} pixels, the data has {image_shape[1]}×{image_shape[2]}; give fewer channels"
            )
        network = build(config, image_shape, outputs)
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
    return network.to(memory_format=torch.channels_last)


def vgg(config: VggConfig, image_shape: ImageShape, outputs: int) -> nn.Sequential:
    """Return blocks of 3×3 convolutions, each with ReLU, and 2×2 max-pooling, then dense layers.

    After Simonyan & Zisserman 2015; with one convolution a block as in Chang & Pathak 2020.
    """
    depth, height, width = image_shape
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for block, width_out in enumerate(config.channels, start=1):
        for convolution in range(1, config.convolutions + 1):
            name = f"conv{block}" if config.convolutions == 1 else f"conv{block}_{convolution}"
            normalized = config.normalization != "none"
            layers[name] = nn.Conv2d(depth, width_out, kernel_size=3, padding=1, bias=not normalized)
            if normalized:
                layers[f"{name}_norm"] = normalization(config.normalization, width_out)
            layers[f"{name}_relu"] = nn.ReLU()
            depth = width_out
        layers[f"conv{block}_pool"] = nn.MaxPool2d(2)
        height, width = height // 2, width // 2
    layers["flatten"] = nn.Flatten()
    layers.update(_dense(depth * height * width, config.dense, outputs, config.dropout, first_drops=True))
    return nn.Sequential(layers)


def mlp(config: MlpConfig, image_shape: ImageShape, outputs: int) -> nn.Sequential:
    """Return dense layers with ReLU over all pixels."""
    depth, height, width = image_shape
    dense = _dense(depth * height * width, config.dense, outputs, config.dropout, first_drops=False)
    return nn.Sequential(OrderedDict([("flatten", nn.Flatten()), *dense.items()]))


def _dense(
    features: int, hidden: tuple[int, ...], outputs: int, dropout: float, first_drops: bool
) -> OrderedDict[str, nn.Module]:
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


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions, added to their input; where the shape changes, that goes through a 1×1 convolution."""

    def __init__(self, depth: int, width: int, stride: int, norm: str):
        super().__init__()
        self.conv1 = nn.Conv2d(depth, width, kernel_size=3, stride=stride, padding=1, bias=False)
        self.norm1 = normalization(norm, width)
        self.conv2 = nn.Conv2d(width, width, kernel_size=3, padding=1, bias=False)
        self.norm2 = normalization(norm, width)
        if stride != 1 or depth != width:
            shortcut = nn.Conv2d(depth, width, kernel_size=1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(OrderedDict(conv=shortcut, norm=normalization(norm, width)))
        else:
            self.shortcut = nn.Identity()
        self.relu = nn.ReLU()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = self.relu(self.norm1(self.conv1(inputs)))
        return self.relu(self.norm2(self.conv2(hidden)) + self.shortcut(inputs))


def resnet(config: ResNetConfig, image_shape: ImageShape, outputs: int) -> nn.Sequential:
    """Return a residual network for small images: He et al. 2016, section 4.2, with projections as shortcuts (B)."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    depth = config.channels[0]
    layers["conv"] = nn.Conv2d(image_shape[0], depth, kernel_size=3, padding=1, bias=False)
    layers["norm"] = normalization(config.normalization, depth)
    layers["relu"] = nn.ReLU()
    for stage, width in enumerate(config.channels, start=1):
        for block in range(1, config.blocks + 1):
            stride = 2 if stage > 1 and block == 1 else 1
            layers[f"stage{stage}_block{block}"] = ResidualBlock(depth, width, stride, config.normalization)
            depth = width
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["output"] = nn.Linear(depth, outputs)
    return nn.Sequential(layers)


def normalization(kind: str, channels: int) -> nn.Module:
    """Return BatchNorm (`batch`), or GroupNorm (`group`) with 8 groups or the most below that divide the channels."""
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    return nn.GroupNorm(max(groups for groups in range(1, GROUPS + 1) if channels % groups == 0), channels)


def own_network(config: OwnModelConfig, image_shape: ImageShape, outputs: int) -> nn.Module:
    """Return what the import path gives. Raises UserError if that is no network, or cannot be made."""
    function = imported(config.name, "model.name")
    offered = {"image_shape": tuple(image_shape), "outputs": outputs}
    try:
        wanted = inspect.signature(function).parameters
    except ValueError:  # it has no signature that can be looked at
        wanted = {}
    arguments = {name: value for name, value in offered.items() if name in wanted} | config.arguments
    network = called(function, arguments, config.name, "model")
    if not isinstance(network, nn.Module):
        raise UserError(f"model.name: {config.name} gives {type(network).__name__}, not a torch.nn.Module; mend it")
    _refuse_lightning_module(network, config.name)
    if any(type(module).__name__ == "OptimizedModule" for module in network.modules()):
        raise UserError(
            f"model.name: {config.name} is compiled by torch.compile, which does not let Batchscape see how large its "
            "tensors are; leave that out"
        )
    if _has_lazy_layers(network):
        with torch.no_grad():  # they learn their sizes from their first input
            outputs_for_images(network.eval(), torch.zeros(1, *image_shape), config.name)
        network.train()
        if _has_lazy_layers(network):
            raise UserError(f"model.name: {config.name} has a lazy layer that sees no image; take it out")
    return _adapted(network, image_shape, config.name)


def _refuse_lightning_module(network: nn.Module, name: str) -> None:
    """Raise UserError for a module with a training of its own: its loss and optimizer would be ignored."""
    kinds = type(network).__mro__
    if not any(kind.__name__ == "LightningModule" and _is_lightnings(kind) for kind in kinds):
        return
    methods = ("training_step", "configure_optimizers")
    owners = {method: next(kind for kind in kinds if method in vars(kind)) for method in methods}
    ignored = [method for method, owner in owners.items() if not _is_lightnings(owner)]
    if ignored:
        raise UserError(
            f"model.name: {name} is a LightningModule, whose {' and '.join(ignored)} would be ignored, for Batchscape "
            "trains with its own loss and SGD; name a class or function that gives its network alone"
        )


def _is_lightnings(kind: type) -> bool:
    """Seen by the name: Lightning takes a second to import, and there are two packages of it."""
    return kind.__module__.partition(".")[0] in ("lightning", "pytorch_lightning")


def _adapted(network: nn.Module, image_shape: ImageShape, name: str) -> nn.Module:
    """Return a network of the user's own so that it takes channels-last input and leaves it as it is.

    Where `view` or the like wants contiguous memory, or the network writes into its input, a hook gives it a copy; so
    whoever calls it may use a tensor again. Raises UserError if it cannot be copied, or its class takes no hooks.
    """
    try:
        copy.deepcopy(network)  # as every analysis of the loss does
    except Exception as error:
        raise UserError(f"model.name: {name} cannot be copied by copy.deepcopy: {told(error)}")
    images = torch.rand(2, *image_shape)
    for layout in (torch.channels_last, torch.contiguous_format):
        try:
            laid_out = copy.deepcopy(network).to(memory_format=layout)
            written = _writes_into(laid_out, images.clone(memory_format=layout))
        except Exception:  # not in this layout, or in none, of which `outputs_for_images` tells
            continue
        network.to(memory_format=layout)
        if written or layout is torch.contiguous_format:
            _give_copies(network, images.clone(memory_format=torch.channels_last), layout, name)
        break
    return network


def _writes_into(network: nn.Module, images: torch.Tensor) -> bool:
    """Say whether a network writes into its input, in evaluation or in training.

    Raises whatever the network raises, forward or backward. It is left as it is.
    """
    twin, before, version = copy.deepcopy(network), images.clone(), images._version
    for training in (False, True):
        outputs = twin.train(training)(images)
        if isinstance(outputs, torch.Tensor) and outputs.requires_grad:
            outputs.sum().backward()
    # The version sees a write that changes no value of these images, but not one through `.data`.
    return images._version != version or not torch.equal(images, before)


def _give_copies(network: nn.Module, images: torch.Tensor, layout: torch.memory_format, name: str) -> None:
    """Have a network get a copy of its input, in a layout. Raises UserError if its class takes no hooks."""
    channels_last = layout is torch.channels_last
    # Not `contiguous`: of one channel a channels-last tensor is contiguous too, and is returned as it is.
    kept = torch.preserve_format if channels_last else layout
    try:
        network.register_forward_pre_hook(lambda _, inputs: tuple(given.clone(memory_format=kept) for given in inputs))
        # On a copy, for those of TorchScript lose their hooks.
        adapted = not _writes_into(copy.deepcopy(network), images)
    except Exception:
        adapted = False
    if not adapted:
        what, way_out = (
            ("writes into its input", "write such as `images = images - 0.5` for `images -= 0.5`")
            if channels_last
            else ("takes no channels-last input", "write `flatten` or `reshape` for `view`")
        )
        kind = type(network).__name__
        raise UserError(f"model.name: {name} {what}, and a {kind} keeps no hook that hands it a copy; {way_out}")


def outputs_for_images(network: nn.Module, images: torch.Tensor, name: str) -> Any:
    """Return what a network gives for images, (n, channels, height, width) float.

    Raises UserError if it cannot take them; `name` is what the study file calls it.
    """
    try:
        return network(images)
    except Exception as error:  # whatever the user's code does
        if is_out_of_memory(error):
            raise
        raise UserError(f"model.name: {name} cannot take images of shape {tuple(images.shape[1:])}: {told(error)}")


def _has_lazy_layers(network: nn.Module) -> bool:
    return any(map(is_lazy, (*network.parameters(), *network.buffers())))
