"""A network of the user's own, by import path, and what adapts it to how it is called here."""

import copy
import inspect

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from batchscape.config.model import OwnModelConfig
from batchscape.errors import UserError
from batchscape.models.build import apply_network
from batchscape.runtime.user_code import call_user_code, import_object, summarize_error


def build(config: OwnModelConfig, image_shape: tuple[int, int, int], outputs: int) -> nn.Module:
    """Return what the import path gives. Raises UserError if that is no network, or cannot be made."""
    function = import_object(config.name, "model.name")
    offered = {"image_shape": tuple(image_shape), "outputs": outputs}
    try:
        wanted = inspect.signature(function).parameters
    except ValueError:  # it has no signature that can be looked at
        wanted = {}
    arguments = {name: value for name, value in offered.items() if name in wanted} | config.arguments
    network = call_user_code(function, arguments, config.name, "model")
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
            apply_network(network.eval(), torch.zeros(1, *image_shape), config.name)
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


def _adapted(network: nn.Module, image_shape: tuple[int, int, int], name: str) -> nn.Module:
    """Return a network of the user's own so that it takes channels-last input and leaves it as it is.

    Where `view` or the like wants contiguous memory, or the network writes into its input, a hook gives it a copy; so
    whoever calls it may use a tensor again. Raises UserError if it cannot be copied, or its class takes no hooks.
    """
    try:
        copy.deepcopy(network)  # as every analysis of the loss does
    except Exception as error:
        raise UserError(f"model.name: {name} cannot be copied by copy.deepcopy: {summarize_error(error)}")
    images = torch.rand(2, *image_shape)
    for layout in (torch.channels_last, torch.contiguous_format):
        try:
            laid_out = copy.deepcopy(network).to(memory_format=layout)
            written = _writes_into(laid_out, images.clone(memory_format=layout))
        except Exception:  # not in this layout, or in none, which `apply_network` reports
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


def _has_lazy_layers(network: nn.Module) -> bool:
    return any(map(is_lazy, (*network.parameters(), *network.buffers())))
