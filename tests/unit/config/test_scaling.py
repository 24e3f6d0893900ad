"""Rules from the batch size to hyperparameters, compared with their closed forms."""

import inspect
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from batchscape.config.scaling import (
    DECAY_RATES,
    DEFAULTS,
    EXPONENTS,
    HYPERPARAMETERS,
    LEARNING_RATE,
    ScalingError,
    is_equal,
    keep_time_scale,
    known_hyperparameters,
    scale,
    scale_half_life,
)

DIGITS = 5e-6  # of six significant digits
ADAM = {LEARNING_RATE: 0.003, "beta1": 0.99, "beta2": 0.9995, "eps": 1e-8}
NAMES = (LEARNING_RATE, *HYPERPARAMETERS)
ratios = st.sampled_from([2.0**power for power in range(-5, 6)])
unit_interval = st.floats(0, 1, exclude_min=True, exclude_max=True)


@pytest.mark.parametrize("optimizer", DEFAULTS)
def test_defaults_are_those_of_torch(optimizer: str):
    parameters = inspect.signature(getattr(torch.optim, optimizer)).parameters
    expected = {name: parameters[name].default for name in ("eps", "weight_decay", "momentum") if name in parameters}
    if "betas" in parameters:
        expected |= dict(zip(("beta1", "beta2"), parameters["betas"].default, strict=True))
    assert DEFAULTS[optimizer] == expected


@given(name=st.sampled_from(NAMES), value=unit_interval, exponent=st.floats(-10, 10))
def test_base_batch_size_has_exactly_the_base_values(name: str, value: float, exponent: float):
    assert scale(name, value, 1.0, exponent) == value
    assert scale_half_life(value, 1.0) == value
    assert keep_time_scale(value, 1.0, 1.0) == value


@given(name=st.sampled_from(NAMES), value=unit_interval, ratio=ratios)
def test_exponent_0_changes_nothing(name: str, value: float, ratio: float):
    assert scale(name, value, ratio, 0.0) == value


@given(name=st.sampled_from([LEARNING_RATE, "eps", "weight_decay"]), ratio=ratios, exponent=st.floats(-3, 3))
def test_value_is_proportional_to_a_power_of_the_batch_size(name: str, ratio: float, exponent: float):
    assert scale(name, 0.0123, ratio, exponent) == pytest.approx(0.0123 * ratio**exponent, rel=DIGITS)


@given(name=st.sampled_from(DECAY_RATES), ratio=ratios, exponent=st.floats(-1, 1))
def test_distance_of_a_decay_rate_from_1_is_proportional_to_a_power_of_the_batch_size(
    name: str, ratio: float, exponent: float
):
    assert 1 - scale(name, 0.99, ratio, exponent) == pytest.approx(0.01 * ratio**exponent, rel=DIGITS)


@given(ratio=ratios)
def test_sde_rule_keeps_what_the_stochastic_differential_equation_of_adam_depends_on(ratio: float):
    # Malladi et al. 2022: with noise σ ∝ 1/√B, the limit depends on σ·η, (1 − β)/η² and ε/σ alone.
    scaled = {name: scale(name, value, ratio, EXPONENTS["sde"][name]) for name, value in ADAM.items()}

    def invariants(values: dict[str, float], batch_size: float) -> list[float]:
        noise, rate = batch_size**-0.5, values[LEARNING_RATE]
        return [noise * rate, (1 - values["beta1"]) / rate**2, (1 - values["beta2"]) / rate**2, values["eps"] / noise]

    assert invariants(scaled, ratio) == pytest.approx(invariants(ADAM, 1), rel=3 * DIGITS)


@given(beta=st.floats(0.9, 0.99999), ratio=ratios)
def test_half_life_in_examples_does_not_depend_on_the_batch_size(beta: float, ratio: float):
    scaled = scale_half_life(beta, ratio)
    # log ½ / log β steps of B examples; as log β / B, which is never infinite.
    assert math.log(scaled) / ratio == pytest.approx(math.log(beta), rel=10 * DIGITS)
    assert 1 - scaled == pytest.approx(1 - beta**ratio, rel=DIGITS)


def test_half_life_of_a_paper_is_that_of_its_batch_size():
    # Marek et al. 2025: β₂ = 0.95 at 512 sequences is 0.9999 at one.
    assert scale_half_life(0.95, 1 / 512) == pytest.approx(0.9999, abs=5e-7)


@given(ratio=ratios, exponent=st.floats(-1, 1))
def test_time_scale_in_examples_does_not_depend_on_the_batch_size(ratio: float, exponent: float):
    rate = 0.003 * ratio**exponent
    decay = keep_time_scale(0.1, ratio, rate / 0.003)
    assert ratio / (rate * decay) == pytest.approx(1 / (0.003 * 0.1), rel=DIGITS)


@pytest.mark.parametrize(
    ("value", "ratio", "scaled"), [(0.999, 4, 0.996), (0.95, 1 / 4, 0.9875), (0.9999, 0.5, 0.99995)]
)
def test_decay_rates_have_no_rounding_errors(value: float, ratio: float, scaled: float):
    assert scale("beta2", value, ratio, 1) == scaled


def test_decay_rates_close_to_1_keep_six_digits_of_their_distance():
    assert 1 - scale("beta2", 0.999, 1 / 3, 1) == pytest.approx(0.001 / 3, rel=DIGITS)
    assert not is_equal("beta2", 0.9999999, 0.9999998)
    assert is_equal("weight_decay", 0.1, 0.1 + 1e-9)


@pytest.mark.parametrize("name", DECAY_RATES)
@pytest.mark.parametrize(("value", "ratio"), [(0.9, 10), (0.9, 11), (0.0, 2), (0.999, 1e-30)])
def test_decay_rate_that_is_none_is_refused(name: str, value: float, ratio: float):
    with pytest.raises(ScalingError, match=rf"^{name} = .*, which must be between 0 and 1$") as caught:
        scale(name, value, ratio, 1)
    assert caught.value.hyperparameter == name


@pytest.mark.parametrize(("ratio", "exponent"), [(1e40, 10), (1e40, -10), (1e10, 5)])
def test_value_beyond_the_bounds_is_refused(ratio: float, exponent: float):
    with pytest.raises(ScalingError, match=r"^eps = .*, which must be between 1e-30 and 1e30$"):
        scale("eps", 1e-3, ratio, exponent)


def test_half_life_that_no_float_has_is_refused():
    with pytest.raises(ScalingError, match=r"^beta2 = 0, which must be"):
        scale_half_life(0.5, 4096)
    with pytest.raises(ScalingError, match=r"^beta2 = 0, which must be"):
        scale_half_life(0.0, 2)


@pytest.mark.parametrize(
    ("optimizer", "arguments", "known"),
    [
        ("SGD", {"momentum": 0.9, "nesterov": True}, {"momentum": 0.9, "weight_decay": 0}),
        (
            "AdamW",
            {"betas": [0.9, 0.95], "amsgrad": True},
            {"beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.01},
        ),
        ("my_module:Lion", {"betas": [0, 0.99]}, {"beta1": 0, "beta2": 0.99}),
        ("Adafactor", {"eps": [1e-30, 1e-3], "weight_decay": 0.1}, {"weight_decay": 0.1}),
        ("Rprop", {"betas": 0.9, "momentum": True}, {}),
        ("my_module:Triple", {"betas": [0.9, 0.99, 0.999]}, {}),
    ],
)
def test_hyperparameters_are_known_from_arguments_and_defaults(optimizer: str, arguments: dict, known: dict):
    assert known_hyperparameters(optimizer, arguments) == known
