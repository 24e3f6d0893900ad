"""State of optimizers as arrays and JSON."""

import copy
import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save
from torch import nn

from batchscape.config.optimizer import OptimizerConfig
from batchscape.optim.optimizers import build_optimizer
from batchscape.optim.state import optimizer_arrays, restore_optimizer

CASES: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {}),
    ("SGD", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    ("SGD", {"momentum": 0.9, "foreach": True}),
    ("Adam", {}),
    ("Adam", {"amsgrad": True, "betas": [0.8, 0.9]}),
    ("Adam", {"fused": False}),
    ("AdamW", {}),
    ("AdamW", {"foreach": False}),
    ("Adadelta", {}),
    ("Adafactor", {}),
    ("Adagrad", {"lr_decay": 0.1}),
    ("Adagrad", {"foreach": False}),
    ("Adamax", {}),
    ("ASGD", {"t0": 2, "lambd": 0.01}),
    ("NAdam", {}),
    ("RAdam", {}),
    ("RMSprop", {"centered": True, "momentum": 0.5}),
    ("Rprop", {}),
]


def network(seed: int = 0) -> nn.Module:
    """Convolutions whose weights are channels-last in memory, as in training, and a frozen parameter."""
    generator = torch.Generator().manual_seed(seed)
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(6, 5), nn.Linear(5, 2))
    with torch.no_grad():
        for parameter in layers.parameters():
            parameter.normal_(generator=generator)
    layers[3].bias.requires_grad = False
    return layers.to(memory_format=torch.channels_last)


def take_step(layers: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    generator = torch.Generator().manual_seed(100 + step)
    for parameter in layers.parameters():
        if parameter.requires_grad:
            gradient = torch.randn(parameter.shape, generator=generator)
            parameter.grad = torch.empty_like(parameter).copy_(gradient)
    for group in optimizer.param_groups:
        group["lr"] = 0.01 / step
    optimizer.step()


def round_trip(layers: nn.Module, optimizer: torch.optim.Optimizer, config: OptimizerConfig) -> tuple:
    """A copy of the network with an optimizer that is restored from bytes."""
    arrays, values = optimizer_arrays(optimizer)
    data, text = save(arrays), json.dumps(values)
    twin = copy.deepcopy(layers)
    restored = build_optimizer(twin, config, 0.01)
    restore_optimizer(restored, load(data), json.loads(text))
    return twin, restored


def assert_equal_states(first: torch.optim.Optimizer, second: torch.optim.Optimizer) -> None:
    expected, actual = first.state_dict(), second.state_dict()
    assert actual["param_groups"] == expected["param_groups"]
    assert actual["state"].keys() == expected["state"].keys()
    for index, state in expected["state"].items():
        assert actual["state"][index].keys() == state.keys()
        for key, value in state.items():
            other = actual["state"][index][key]
            assert type(other) is type(value)
            if isinstance(value, torch.Tensor):
                assert torch.equal(other, value)
                assert (other.dtype, other.stride(), other.device) == (value.dtype, value.stride(), value.device)
            else:
                assert other == value


@pytest.mark.parametrize("decays_all", [True, False])
@pytest.mark.parametrize(("name", "arguments"), CASES, ids=lambda value: str(value))
def test_restored_optimizer_continues_with_identical_bits(name: str, arguments: dict, decays_all: bool):
    if name == "Rprop" and not decays_all:
        pytest.skip("has no weight_decay")
    config = OptimizerConfig(name=name, arguments=arguments, decay_biases_and_norms=decays_all)
    layers = network()
    optimizer = build_optimizer(layers, config, 0.01)
    for step in range(1, 4):
        take_step(layers, optimizer, step)
    twin, restored = round_trip(layers, optimizer, config)
    assert_equal_states(optimizer, restored)
    for step in range(4, 8):
        take_step(layers, optimizer, step)
        take_step(twin, restored, step)
    for parameter, other in zip(layers.parameters(), twin.parameters(), strict=True):
        assert torch.equal(parameter, other)
    assert_equal_states(optimizer, restored)


@given(case=st.sampled_from(CASES), before=st.integers(0, 6), after=st.integers(1, 3), seed=st.integers(0, 9))
def test_any_step_can_be_the_last_before_a_resume(case: tuple, before: int, after: int, seed: int):
    config = OptimizerConfig(name=case[0], arguments=case[1])
    layers = network(seed)
    optimizer = build_optimizer(layers, config, 0.01)
    for step in range(1, before + 1):
        take_step(layers, optimizer, step)
    twin, restored = round_trip(layers, optimizer, config)
    for step in range(before + 1, before + after + 1):
        take_step(layers, optimizer, step)
        take_step(twin, restored, step)
    for parameter, other in zip(layers.parameters(), twin.parameters(), strict=True):
        assert torch.equal(parameter, other)


def test_arrays_are_named_copies_in_c_order():
    layers = network()
    optimizer = build_optimizer(layers, OptimizerConfig(arguments={"momentum": 0.9}), 0.01)
    take_step(layers, optimizer, 1)
    arrays, values = optimizer_arrays(optimizer)
    assert set(arrays) == {f"{index}/momentum_buffer" for index in range(7)}  # the frozen one has no state
    assert all(array.flags.c_contiguous for array in arrays.values())
    np.testing.assert_array_equal(arrays["0/momentum_buffer"], layers[0].weight.grad.numpy())
    assert values["groups"][0]["momentum"] == 0.9
    before = arrays["2/momentum_buffer"].copy()
    take_step(layers, optimizer, 2)
    np.testing.assert_array_equal(arrays["2/momentum_buffer"], before)


def test_restored_state_shares_no_memory_with_the_arrays():
    layers, config = network(), OptimizerConfig(name="Adam")
    optimizer = build_optimizer(layers, config, 0.01)
    take_step(layers, optimizer, 1)
    arrays, values = optimizer_arrays(optimizer)
    before = {name: array.copy() for name, array in arrays.items()}
    restore_optimizer(optimizer, arrays, values)
    take_step(layers, optimizer, 2)
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_state_of_other_precision_keeps_its_bits(dtype: torch.dtype):
    """Optimizers of torch have the precision of the parameter: `load_state_dict` casts float state to it."""
    layers, config = network(), OptimizerConfig(arguments={"momentum": 0.9, "fused": False})
    optimizer = build_optimizer(layers, config, 0.01)
    generator = torch.Generator().manual_seed(0)
    for parameter in layers.parameters():
        optimizer.state[parameter] = {
            "low": torch.randn(parameter.shape, generator=generator).to(dtype),
            "count": torch.tensor(2**40 + 1),
            "mask": torch.rand(parameter.shape, generator=generator) > 0.5,
            "plain": 1 / 3,
            "large": 2**60 + 1,
            "flag": True,
            "text": "é",
            "nothing": None,
        }
    _, restored = round_trip(layers, optimizer, config)
    assert_equal_states(optimizer, restored)


def test_bfloat16_networks_resume_exactly():
    for name in ("SGD", "AdamW", "Adafactor"):
        config = OptimizerConfig(name=name, arguments={"momentum": 0.9} if name == "SGD" else {})
        layers = network().to(torch.bfloat16)
        optimizer = build_optimizer(layers, config, 0.01)
        take_step(layers, optimizer, 1)
        twin, restored = round_trip(layers, optimizer, config)
        assert_equal_states(optimizer, restored)
        take_step(layers, optimizer, 2)
        take_step(twin, restored, 2)
        for parameter, other in zip(layers.parameters(), twin.parameters(), strict=True):
            assert torch.equal(parameter, other)


def test_memory_layouts_that_are_not_the_parameters_are_kept():
    layers, config = network(), OptimizerConfig(arguments={"momentum": 0.9})
    optimizer = build_optimizer(layers, config, 0.01)
    weight = layers[0].weight
    optimizer.state[weight] = {
        "as the parameter": torch.randn_like(weight),
        "in C order": torch.randn(weight.shape),
        "transposed": torch.randn(4, 6).T,
        "expanded": torch.randn(1).expand(5),
    }
    _, restored = round_trip(layers, optimizer, config)
    (state,) = restored.state_dict()["state"].values()
    for key, value in optimizer.state[weight].items():
        assert torch.equal(state[key], value)
        assert key == "expanded" or state[key].stride() == value.stride()


def test_state_of_the_whole_optimizer_and_tensors_in_groups_are_kept():
    layers, config = network(), OptimizerConfig(arguments={"momentum": 0.9})
    optimizer = build_optimizer(layers, config, 0.01)
    optimizer.state["shared"] = torch.arange(3.0)
    optimizer.state["calls"] = 7
    optimizer.param_groups[0]["lr"] = torch.tensor(0.1, dtype=torch.float64)
    optimizer.param_groups[0]["coefficients"] = (0.5, (1, None))
    _, restored = round_trip(layers, optimizer, config)
    assert torch.equal(restored.state["shared"], torch.arange(3.0))
    assert restored.state["calls"] == 7
    assert torch.equal(restored.param_groups[0]["lr"], torch.tensor(0.1, dtype=torch.float64))
    assert restored.param_groups[0]["coefficients"] == (0.5, (1, None))


def test_implementation_is_that_of_the_new_optimizer():
    """A run that started on another device may resume with another implementation."""
    layers = network()
    optimizer = build_optimizer(layers, OptimizerConfig(name="Adam"), 0.01)
    take_step(layers, optimizer, 1)
    arrays, values = optimizer_arrays(optimizer)
    restored = build_optimizer(layers, OptimizerConfig(name="Adam", arguments={"fused": False}), 0.01)
    restore_optimizer(restored, arrays, values)
    assert optimizer.param_groups[0]["fused"]
    assert not restored.param_groups[0]["fused"]
    take_step(layers, restored, 2)


@pytest.mark.parametrize(
    "value", [[1.0, 2.0], {"a": 1}, (1,), np.int64(3), object(), torch.ones(2).to_sparse()], ids=lambda v: str(type(v))
)
def test_state_that_is_not_saved_is_named(refusal, value: Any):
    layers = network()
    optimizer = build_optimizer(layers, OptimizerConfig(), 0.01)
    optimizer.state[layers[0].weight]["history"] = value
    message = refusal(optimizer_arrays, optimizer)
    assert message.startswith(f"optimizer.name: the state of SGD has a {type(value).__name__} as ")
    assert "history" in message
    assert message.endswith("; keep tensors and numbers in it")
    optimizer = build_optimizer(layers, OptimizerConfig(), 0.01)
    optimizer.state["history"] = value
    assert "'history'" in refusal(optimizer_arrays, optimizer)


def test_setting_of_a_group_that_is_not_saved_is_named(refusal):
    optimizer = build_optimizer(network(), OptimizerConfig(), 0.01)
    optimizer.param_groups[0]["callback"] = print
    assert "'callback'" in refusal(optimizer_arrays, optimizer)
