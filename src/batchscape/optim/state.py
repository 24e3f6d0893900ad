"""The state of an optimizer as arrays and JSON, from which a run resumes bit for bit."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from batchscape.errors import UserError

# Arguments that select an implementation for the device at hand: a resumed run may be on another one.
IMPLEMENTATION = ("fused", "foreach", "capturable", "differentiable")
# For dtypes that NumPy lacks, such as bfloat16: integers of the same size in bytes.
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_SCALARS = (bool, int, float, str, type(None))


def optimizer_arrays(optimizer: torch.optim.Optimizer) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return a copy of the state of an optimizer.

    Args:
        optimizer: The optimizer.

    Returns:
        Its tensors, in C order, and all other values, as a dict for JSON. A tensor is named `<index>/<key>` by the
        index of its parameter in the state dict of the optimizer, `state/<key>` if it belongs to no parameter, or
        `group <index>/<key>` if it is in a parameter group, such as a learning rate.

    Raises:
        UserError: The state has a value that is neither a tensor nor a number, text, boolean or None.
    """
    name, state_dict = type(optimizer).__name__, optimizer.state_dict()
    parameters = _parameters(optimizer)
    arrays: dict[str, np.ndarray] = {}
    values: dict[str, Any] = {"parameters": {}, "state": {}, "groups": [], "dtypes": {}, "strides": {}, "cpu": []}

    def add_tensor(entry: str, tensor: Tensor, parameter: Tensor | None = None) -> None:
        if type(tensor) not in (Tensor, torch.nn.Parameter) or tensor.layout != torch.strided or tensor.is_quantized:
            raise _not_saved(name, entry.partition("/")[2], tensor)
        arrays[entry], dtype = _to_array(tensor.detach())
        if dtype:
            values["dtypes"][entry] = dtype
        if parameter is not None and tensor.shape == parameter.shape:
            default = parameter
        else:
            default = torch.empty(tensor.shape, device="meta")
        if tensor.stride() != default.stride():
            values["strides"][entry] = list(tensor.stride())
        if parameter is not None and tensor.device.type == "cpu" != parameter.device.type:
            values["cpu"].append(entry)

    for index, state in state_dict["state"].items():
        if isinstance(index, int) and not isinstance(state, Mapping):
            raise _not_saved(name, str(index), state)
        if not isinstance(index, int):
            if isinstance(state, Tensor):
                add_tensor(f"state/{index}", state)
            elif isinstance(index, str) and isinstance(state, _SCALARS):
                values["state"][index] = state
            else:
                raise _not_saved(name, str(index), state)
            continue
        values["parameters"][str(index)] = scalars = {}
        for key, value in state.items():
            if isinstance(key, str) and isinstance(value, Tensor):
                add_tensor(f"{index}/{key}", value, parameters[index])
            elif isinstance(key, str) and isinstance(value, _SCALARS):
                scalars[key] = value
            else:
                raise _not_saved(name, str(key), value)
    for index, group in enumerate(state_dict["param_groups"]):
        values["groups"].append(settings := {})
        for key, value in group.items():
            if key in ("params", *IMPLEMENTATION):
                continue
            if isinstance(value, Tensor):
                add_tensor(f"group {index}/{key}", value)
            elif _is_plain(value):
                settings[key] = value
            else:
                raise _not_saved(name, key, value)
    return arrays, values


def restore_optimizer(
    optimizer: torch.optim.Optimizer, arrays: Mapping[str, np.ndarray], values: Mapping[str, Any]
) -> None:
    """Give an optimizer the state of another one with the same parameters.

    Args:
        optimizer: A new optimizer, of the same class and arguments.
        arrays: The tensors that `optimizer_arrays` returned.
        values: Its other values, also after a round trip through JSON.
    """
    parameters, dtypes, strides = _parameters(optimizer), values["dtypes"], values["strides"]
    tensors = {name: _to_tensor(array, dtypes.get(name), strides.get(name)) for name, array in arrays.items()}
    state: dict[int | str, Any] = {int(index): dict(scalars) for index, scalars in values["parameters"].items()}
    state.update(values["state"])
    groups = optimizer.state_dict()["param_groups"]
    for group, settings in zip(groups, values["groups"], strict=True):
        group.update({key: _like(group.get(key), value) for key, value in settings.items()})
    for name, tensor in tensors.items():
        owner, _, key = name.partition("/")
        if owner.isdecimal():
            parameter = parameters[int(owner)]
            if tensor.shape == parameter.shape and name not in strides:
                # Fused implementations go through memory in order.
                tensor = torch.empty_like(parameter, dtype=tensor.dtype, device="cpu").copy_(tensor)
            tensors[name] = state[int(owner)][key] = tensor.to(parameter.device)
        elif owner == "state":
            state[key] = tensor.to(parameters[0].device)
        else:
            groups[int(owner.removeprefix("group "))][key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    _undo_casts(optimizer, tensors, values)


def second_moments(optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor]) -> list[Tensor] | None:
    """Return Adam's moving averages of the squared gradients, `exp_avg_sq`.

    Args:
        optimizer: The optimizer.
        parameters: All parameters of the network.

    Returns:
        A tensor of the shape of each parameter, 0 for one that has had no gradient; None if the optimizer has none.
    """
    moments = [optimizer.state.get(parameter, {}).get("exp_avg_sq") for parameter in parameters]
    has_shape = [
        moment.shape == each.shape for moment, each in zip(moments, parameters, strict=True) if moment is not None
    ]
    if not (has_shape and all(has_shape)):
        return None
    pairs = zip(moments, parameters, strict=True)
    return [torch.zeros_like(each) if moment is None else moment.detach() for moment, each in pairs]


def _undo_casts(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Restore what `load_state_dict` changes: dtypes and devices, to those of the parameter, and text."""
    index = -1
    for group in optimizer.param_groups:
        needs_step_on_device = group.get("fused") or group.get("capturable")
        for parameter in group["params"]:
            index += 1
            state = optimizer.state.get(parameter, {})
            scalars = values["parameters"].get(str(index), {})
            state.update({key: value for key, value in scalars.items() if isinstance(value, str) and key in state})
            for key, loaded in state.items():
                saved = tensors.get(name := f"{index}/{key}")
                if saved is None or not isinstance(loaded, Tensor) or (key == "step" and needs_step_on_device):
                    continue
                if loaded.dtype != saved.dtype and loaded.shape == saved.shape:
                    state[key] = saved
                if name in values["cpu"]:
                    state[key] = state[key].cpu()


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Return the parameters by their index in the state dict."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _to_array(tensor: Tensor) -> tuple[np.ndarray, str | None]:
    """Return a copy of a tensor, and its dtype if NumPy lacks it."""
    tensor = tensor.cpu().contiguous()
    try:
        return tensor.numpy().copy(), None
    except TypeError:
        return tensor.view(_INTEGERS[tensor.element_size()]).numpy().copy(), str(tensor.dtype).removeprefix("torch.")


def _to_tensor(array: np.ndarray, dtype: str | None, stride: Sequence[int] | None) -> Tensor:
    tensor = torch.from_numpy(array.copy())
    tensor = tensor if dtype is None else tensor.view(getattr(torch, dtype))
    if stride is None or 0 in stride:  # an expanded tensor gets memory of its own
        return tensor
    return torch.empty_strided(tensor.shape, stride, dtype=tensor.dtype).copy_(tensor)


def _is_plain(value: Any) -> bool:
    """Return whether a setting of a group can be JSON, in which tuples become lists."""
    return isinstance(value, _SCALARS) or (isinstance(value, tuple | list) and all(map(_is_plain, value)))


def _like(current: Any, value: Any) -> Any:
    """Return a setting of a group with the kind of sequence that the optimizer uses."""
    if not isinstance(value, list | tuple):
        return value
    parts = current if isinstance(current, list | tuple) and len(current) == len(value) else [None] * len(value)
    converted = (_like(part, item) for part, item in zip(parts, value, strict=True))
    return list(converted) if isinstance(current, list) else tuple(converted)


def _not_saved(name: str, key: str, value: Any) -> UserError:
    return UserError(
        f"optimizer.name: the state of {name} has a {type(value).__name__} as {key!r}, with which a run cannot resume; "
        "keep tensors and numbers in it"
    )
