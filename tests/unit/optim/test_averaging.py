"""The moving average of the weights, compared with closed forms."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from batchscape.optim.averaging import WeightAverage


def network() -> nn.Sequential:
    generator = torch.Generator().manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2))
    with torch.no_grad():
        for parameter in layers.parameters():
            parameter.normal_(generator=generator)
    return layers.to(memory_format=torch.channels_last)


def set_weights(layers: nn.Module, scale: float, direction: dict[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in layers.named_parameters():
            parameter.copy_(scale * direction[name])


@pytest.mark.parametrize("half_life", [10, 1000, 10**6])
def test_average_of_a_linear_path_is_its_closed_form(half_life: int):
    """θ_s = s·v, so the average is v·Σ w_s s / Σ w_s; Σ d^(t−s) s = (t − (t + 1) d + d^(t + 1)) / (1 − d)²."""
    layers = network()
    direction = {name: parameter.detach().clone() for name, parameter in layers.named_parameters()}
    average = WeightAverage(layers, half_life)
    steps, batch_size = 40, 32
    for step in range(1, steps + 1):
        set_weights(layers, step, direction)
        average.update(batch_size)
    decay = np.longdouble(2) ** (-np.longdouble(batch_size) / half_life)
    if 1 - decay > 1e-3:
        expected = float((steps - (steps + 1) * decay + decay ** (steps + 1)) / (1 - decay) / (1 - decay**steps))
    else:
        weights = decay ** np.arange(steps - 1, -1, -1)
        expected = float(weights @ np.arange(1, steps + 1) / weights.sum())
    for name, value in average.state_dict().items():
        if name in direction:
            torch.testing.assert_close(value, expected * direction[name], rtol=2e-6, atol=1e-7)


def test_batches_of_different_sizes_have_their_weights():
    layers = nn.Linear(1, 1, bias=False)
    average = WeightAverage(layers, half_life=100)
    sizes, values = [100, 50, 200, 7], [1.0, -3.0, 2.5, 10.0]
    for size, value in zip(sizes, values, strict=True):
        nn.init.constant_(layers.weight, value)
        average.update(size)
    decays = [2 ** (-size / 100) for size in sizes]
    weights = [(1 - decay) * np.prod(decays[index + 1 :]) for index, decay in enumerate(decays)]
    expected = np.dot(weights, values) / np.sum(weights)
    assert average.state_dict()["weight"].item() == pytest.approx(expected, rel=1e-6)


def test_half_life_means_the_same_for_all_batch_sizes():
    """Weights that jump after 1000 examples: after a further half-life, in any batch size, the old ones count half."""
    for batch_size in (1, 10, 100):
        layers = nn.Linear(1, 1, bias=False)
        average = WeightAverage(layers, half_life=100)
        for position in range(0, 1100, batch_size):
            nn.init.constant_(layers.weight, float(position >= 1000))
            average.update(batch_size)
        assert average.state_dict()["weight"].item() == pytest.approx(0.5, abs=1e-3)


def test_initial_weights_have_no_part():
    layers = nn.Linear(3, 3)
    average = WeightAverage(layers, half_life=10**9)
    nn.init.constant_(layers.weight, 7.0)
    average.update(1)
    assert torch.equal(average.state_dict()["weight"], torch.full((3, 3), 7.0))


def test_before_the_first_step_the_average_is_the_network():
    layers = network()
    for name, value in WeightAverage(layers, 10).state_dict().items():
        assert torch.equal(value, layers.state_dict()[name])


def test_weights_that_stay_are_their_average_bit_for_bit():
    layers = network()
    average = WeightAverage(layers, half_life=1234)
    for size in (32, 32, 5):
        average.update(size)
    for name, value in average.state_dict().items():
        assert torch.equal(value, layers.state_dict()[name])


def test_state_dict_is_a_copy_that_the_network_takes_with_its_buffers():
    layers = network()
    average = WeightAverage(layers, half_life=100)
    layers(torch.randn(4, 2, 4, 4, generator=torch.Generator().manual_seed(1)))
    average.update(4)
    state = average.state_dict()
    assert list(state) == list(layers.state_dict())
    assert torch.equal(state["1.running_mean"], layers[1].running_mean)
    assert state["1.num_batches_tracked"] == 1
    copy.deepcopy(layers).load_state_dict(state)
    for value in state.values():
        value.fill_(5)
    assert not any((value == 5).all() for value in average.state_dict().values())
    assert not any((value == 5).all() for value in layers.state_dict().values())


def test_shared_parameters_are_averaged_under_all_their_names():
    layers = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    layers[1].weight = layers[0].weight
    average = WeightAverage(layers, half_life=1)
    for value in (1.0, 2.0):
        nn.init.constant_(layers[0].weight, value)
        average.update(1)
    state = average.state_dict()
    assert torch.allclose(state["0.weight"], torch.full((2, 2), 5 / 3))
    assert torch.equal(state["0.weight"], state["1.weight"])


def test_average_of_low_precision_weights_is_float32():
    """Steps of 1/1000 of the distance would be rounded away in bfloat16."""
    layers = nn.Linear(1, 1, bias=False).to(torch.bfloat16)
    average = WeightAverage(layers, half_life=700)
    nn.init.constant_(layers.weight, 1.0)
    average.update(100000)
    nn.init.constant_(layers.weight, 2.0)
    for _ in range(700):
        average.update(1)
    state = average.state_dict()["weight"]
    assert state.dtype == torch.bfloat16
    assert state.item() == pytest.approx(1.5, abs=0.01)


def test_restored_average_continues_with_identical_bits():
    layers, generator = network(), torch.Generator().manual_seed(2)

    def step(averages: list[WeightAverage]) -> None:
        with torch.no_grad():
            for parameter in layers.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator))
        for average in averages:
            average.update(17)

    original = WeightAverage(layers, half_life=50)
    for _ in range(3):
        step([original])
    arrays = original.arrays()
    assert all(array.flags.c_contiguous for array in arrays.values())
    restored = WeightAverage(layers, half_life=50)
    restored.restore(arrays)
    for _ in range(3):
        step([original, restored])
    for name, value in original.state_dict().items():
        assert torch.equal(value, restored.state_dict()[name])
    assert arrays["num_examples"] == 51  # a copy, which further steps leave alone
