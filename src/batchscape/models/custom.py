"""Custom networks, by import path, and their adaptation to Batchscape's calling conventions."""

import copy
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from batchscape.config.model import CustomModelConfig
from batchscape.data.dataset import map_inputs
from batchscape.data.spec import DataSpec
from batchscape.errors import UserError
from batchscape.models.build import apply_network
from batchscape.models.inputs import random_inputs, zero_inputs
from batchscape.models.layers import crashes_in_channels_last
from batchscape.models.placeholders import OFFERED, fill_placeholders, values_for_network
from batchscape.runtime.user_code import call_user_code, import_object, overridden_methods, summarize_error


def build(config: CustomModelConfig, spec: DataSpec, outputs: int) -> nn.Module:
    """Return the network that the class or function returns. Raises UserError if it cannot be used."""
    network = construct(config, spec, outputs)
    if "training_step" in (overridden_methods(network, "LightningModule") or ()):
        raise UserError(
            f"task.loss: {config.name} is a LightningModule with a loss of its own, training_step; write "
            "`task: {loss: module}` to train with it, or name a class or function that returns only its network"
        )
    if has_lazy_layers(network):
        with torch.no_grad():  # the first input initializes lazy layers
            apply_network(network.eval(), zero_inputs(spec, 1), config.name)
        network.train()
        if has_lazy_layers(network):
            raise UserError(
                f"model.name: {config.name} has a lazy layer that stays uninitialized after a forward pass; remove it"
            )
    adapt_to_input(network, spec, random_inputs(spec, 2), config.name)
    return network


def construct(config: CustomModelConfig, spec: DataSpec, outputs: int) -> nn.Module:
    """Return the module that the class or function returns, as it is. Raises UserError if it is no such module."""
    factory = import_object(config.name, "model.name")
    values = values_for_network(spec, outputs)
    try:
        parameters: Mapping[str, inspect.Parameter] = inspect.signature(factory).parameters
    except ValueError:  # some built-in callables have no signature
        parameters = {}
    offered = {name: values[name] for name in OFFERED if name in values and name in parameters}
    arguments = offered | fill_placeholders(config.arguments, values, spec)
    network = call_user_code(factory, arguments, config.name, "model")
    if not isinstance(network, nn.Module):
        raise UserError(
            f"model.name: {config.name} returns {type(network).__name__}, but must return a torch.nn.Module"
        )
    if any(isinstance(module, torch.jit.ScriptModule) for module in network.modules()):
        raise UserError(
            f"model.name: {config.name} is TorchScript, whose copies cannot be trained; return the Python module, "
            "without torch.jit.script or torch.jit.trace"
        )
    if any(type(module).__name__ == "OptimizedModule" for module in network.modules()):
        raise UserError(
            f"model.name: {config.name} is compiled by torch.compile, which hides the sizes of its tensors from "
            "Batchscape; remove torch.compile"
        )
    return network


def adapt_to_input(network: nn.Module, spec: DataSpec, inputs: Any, name: str) -> None:
    """Adapt a network to input like `inputs`, which it must not modify, channels-last if it is images.

    If it needs contiguous memory (for `view`, or a layer that would crash) or writes into its input, a hook passes it a
    copy, so that callers may reuse the tensors. Raises UserError if it does not support copy.deepcopy, or such hooks.
    """
    try:
        copy.deepcopy(network)  # as every analysis of the loss does
    except Exception as error:
        raise UserError(f"model.name: {name} cannot be copied by copy.deepcopy: {summarize_error(error)}")
    own_format = torch.channels_last if spec.inputs == "images" else torch.contiguous_format
    crashes = any(map(crashes_in_channels_last, network.modules()))
    for memory_format in dict.fromkeys((torch.contiguous_format if crashes else own_format, torch.contiguous_format)):
        copies = own_format is not memory_format
        try:
            replica = _to_memory_format(copy.deepcopy(network), memory_format)
            writes = _writes_into(replica, _clone(inputs, memory_format if copies else torch.preserve_format))
        except Exception:  # not in this memory format, or in none, which `apply_network` reports
            continue
        _to_memory_format(network, memory_format)
        if writes or copies:
            _copy_input(network, inputs, memory_format if copies else None, name)
        break


def _clone(inputs: Any, memory_format: torch.memory_format) -> Any:
    return map_inputs(lambda tensor: tensor.clone(memory_format=memory_format), inputs)


def _to_memory_format(network: nn.Module, memory_format: torch.memory_format) -> nn.Module:
    return network.to(memory_format=memory_format)  # type: ignore[call-overload]  # not in torch's stubs


def _writes_into(network: nn.Module, inputs: Any) -> bool:
    """Return whether a network modifies its input, in evaluation or in training mode, leaving the network unchanged.

    Raises whatever its forward or backward pass raises.
    """
    replica = copy.deepcopy(network)
    tensors = (inputs,) if isinstance(inputs, torch.Tensor) else inputs
    before = [(tensor.clone(), tensor._version) for tensor in tensors]
    for training in (False, True):
        outputs = replica.train(training)(inputs)
        if isinstance(outputs, torch.Tensor) and outputs.requires_grad:
            outputs.sum().backward()
    # The version counter, for which torch has no public name, detects a write that happens to change no value, but not
    # a write through `.data`.
    return any(
        tensor._version != version or not torch.equal(tensor, values)
        for tensor, (values, version) in zip(tensors, before, strict=True)
    )


def _copy_input(network: nn.Module, inputs: Any, memory_format: torch.memory_format | None, name: str) -> None:
    """Make a network copy its input, to a memory format or as it is.

    Raises UserError if its class does not support hooks.
    """
    # `contiguous` would not copy single-channel images, which are contiguous in both formats.
    target = memory_format or torch.preserve_format
    try:
        network.register_forward_pre_hook(lambda _, arguments: tuple(_clone(part, target) for part in arguments))
        # Tested on a copy, as analyses use; a class whose `__call__` is its own runs no hooks.
        works = not _writes_into(copy.deepcopy(network), _clone(inputs, torch.preserve_format))
    except Exception:
        works = False
    if not works:
        problem, fix = (
            ("does not support channels-last input", "use `flatten` or `reshape` instead of `view`")
            if memory_format
            else ("writes into its input", "write `inputs = inputs - 0.5` instead of `inputs -= 0.5`")
        )
        cls = type(network).__name__
        raise UserError(f"model.name: {name} {problem}, and a {cls} does not support hooks that copy it; {fix}")


def has_lazy_layers(network: nn.Module) -> bool:
    """Return whether a network has parameters or buffers whose shape its first input decides."""
    return any(map(is_lazy, (*network.parameters(), *network.buffers())))
