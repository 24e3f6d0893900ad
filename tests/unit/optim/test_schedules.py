"""Learning rate schedules, compared with the schedulers of torch."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from batchscape.config.schedule import ScheduleConfig
from batchscape.optim.schedules import factor

DECAYS = ("constant", "linear", "cosine", "sqrt")


def factors(total: int, warmup: int, **settings: Any) -> list[float]:
    return [factor(step, total, warmup, ScheduleConfig(**settings)) for step in range(1, total + 1)]


def torch_factors(total: int, schedulers: list, milestones: list[int]) -> list[float]:
    """The learning rates of torch's schedulers, one after the other, for an initial rate of 1."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = lr_scheduler.SequentialLR(optimizer, [create(optimizer) for create in schedulers], milestones)
    rates = []
    for _ in range(total):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def warm_up(length: int):
    return lambda optimizer: lr_scheduler.LinearLR(optimizer, start_factor=1 / length, total_iters=length - 1)


def keep():
    return lambda optimizer: lr_scheduler.ConstantLR(optimizer, factor=1.0)


@pytest.mark.parametrize("final", [0.0, 0.1])
@pytest.mark.parametrize(("total", "start"), [(1, 0), (2, 0), (10, 0), (100, 80), (7, 6)])
def test_decay_has_the_rates_of_torch(total: int, start: int, final: float):
    length = total - start
    shapes = {
        "linear": lambda optimizer: lr_scheduler.LinearLR(optimizer, 1.0, final, total_iters=length),
        "cosine": lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, T_max=length, eta_min=final),
    }
    for decay, create in shapes.items():
        rates = factors(total, 0, decay=decay, decay_fraction=length / total, final_factor=final)
        schedulers, milestones = ([keep(), create], [start]) if start else ([create], [])
        assert rates == pytest.approx(torch_factors(total, schedulers, milestones), abs=1e-12)


def test_warmup_constant_and_decay_have_the_rates_of_torch():
    cosine = lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, T_max=20)  # noqa: E731
    expected = torch_factors(100, [warm_up(10), keep(), cosine], [10, 80])
    assert factors(100, 10, decay="cosine", decay_fraction=0.2) == pytest.approx(expected, abs=1e-12)


def test_sqrt_decay_is_that_of_its_formula():
    rates = factors(50, 0, decay="sqrt", decay_fraction=0.4, final_factor=0.25)
    assert rates[:30] == [1.0] * 30
    assert rates[30:] == pytest.approx([0.25 + 0.75 * (1 - math.sqrt(done / 20)) for done in range(20)])
    assert rates[35] == pytest.approx(0.25 + 0.75 * (1 - 0.5))  # 5 of 20 steps are done: 1 − √(1/4)


@pytest.mark.parametrize("decay", DECAYS)
def test_warmup_is_exactly_the_fraction_of_its_steps(decay: str):
    rates = factors(30, 7, decay=decay)
    assert rates[:7] == [step / 7 for step in range(1, 8)]
    assert rates[7] == 1.0  # the first step of the decay has still the full rate


def test_constant_is_exactly_one():
    assert factors(20, 0) == [1.0] * 20
    assert factors(20, 0, decay_fraction=0.1, final_factor=0.0) == [1.0] * 20


@pytest.mark.parametrize("decay", DECAYS)
def test_extremes_of_the_budget(decay: str):
    assert factors(1, 0, decay=decay) == [1.0]
    assert factors(1, 1, decay=decay) == [1.0]
    assert factors(5, 5, decay=decay) == [0.2, 0.4, 0.6, 0.8, 1.0]  # the warm-up leaves nothing to decay in
    assert factors(10, 0, decay=decay, decay_fraction=0.04) == [1.0] * 10  # rounds to no steps


@pytest.mark.parametrize("decay", DECAYS[1:])
def test_decay_does_not_begin_before_the_warmup_ends(decay: str):
    late = factors(10, 6, decay=decay, decay_fraction=1.0)
    assert late == factors(10, 6, decay=decay, decay_fraction=0.4)
    assert late[6:] == factors(4, 0, decay=decay)


@pytest.mark.parametrize("decay", DECAYS[1:])
def test_final_factor_is_reached_after_the_last_step(decay: str):
    config = ScheduleConfig(decay=decay, final_factor=0.3)
    assert factor(10, 10, 0, config) > 0.3
    assert factor(11, 10, 0, config) == pytest.approx(0.3)


@given(st.data())
def test_factor_rises_then_falls_between_its_bounds(data: st.DataObject):
    total = data.draw(st.integers(1, 60))
    warmup = data.draw(st.integers(0, total))
    final = data.draw(st.floats(0, 1))
    fraction = data.draw(st.floats(0.001, 1))
    decay = data.draw(st.sampled_from(DECAYS))
    rates = factors(total, warmup, decay=decay, decay_fraction=fraction, final_factor=final)
    assert all(0 <= rate <= 1 for rate in rates)
    assert rates[:warmup] == sorted(rates[:warmup])
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
    assert all(rate >= final for rate in rates[warmup:])
