"""Rules from the batch size to the hyperparameters of the optimizer, without torch.

A rule scales the values at the base batch size B₀ with κ = B/B₀.
"""

import math
from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Any

from batchscape.config.optimizer import OWN_OPTIMIZER

LEARNING_RATE = "learning_rate"
# In the order in which the name of a setting lists them.
BETAS = ("beta1", "beta2")
HYPERPARAMETERS = (*BETAS, "eps", "weight_decay", "momentum")
DECAY_RATES = (*BETAS, "momentum")
"""Factors below 1 of moving averages; their exponents are those of 1 − h, the inverse of the averaged steps."""

EXPONENTS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "constant": {},
        "linear": {LEARNING_RATE: 1},
        "sqrt": {LEARNING_RATE: 0.5},
        "sde": {LEARNING_RATE: 0.5, "beta1": 1, "beta2": 1, "eps": -0.5},
        "half_life": {"beta2": 1},
    }
)
"""The hyperparameters that each rule scales, with their exponents of κ; the exponent of `half_life` is that of β₂."""

_ADAM = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0}
DEFAULTS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "SGD": {"weight_decay": 0.0, "momentum": 0.0},
        "Adam": _ADAM,
        "AdamW": {**_ADAM, "weight_decay": 0.01},
        "NAdam": _ADAM,
        "RAdam": _ADAM,
        "Adamax": _ADAM,
    }
)
"""The hyperparameters of classes of `torch.optim` with their defaults; a test compares them with torch."""


class ScalingError(ValueError):
    """A hyperparameter that a rule cannot scale.

    Attributes:
        hyperparameter: Its name.
    """

    def __init__(self, hyperparameter: str, message: str) -> None:
        super().__init__(message)
        self.hyperparameter = hyperparameter


def known_hyperparameters(optimizer: str, arguments: Mapping[str, Any]) -> dict[str, float]:
    """Return the hyperparameters of an optimizer that are known without importing it.

    Args:
        optimizer: A class of `torch.optim`, or an import path.
        arguments: Its keyword arguments; `betas` is a list of two numbers.

    Returns:
        The values by name: those of the arguments, else the defaults of the class if it is in `DEFAULTS`.
    """
    betas = arguments.get("betas")
    pair = betas if isinstance(betas, list | tuple) and len(betas) == 2 else (None, None)
    given = dict(zip(BETAS, pair, strict=True))
    given |= {name: arguments.get(name) for name in ("eps", "weight_decay", "momentum")}
    values = dict(DEFAULTS.get(optimizer, {}))
    return values | {name: float(value) for name, value in given.items() if _is_number(value)}


def explain_unknown(optimizer: str, name: str) -> tuple[str, str]:
    """Return why a hyperparameter is not in `known_hyperparameters`, and how to fix it."""
    if optimizer in DEFAULTS:
        return f"{optimizer} has no {name}", "remove it, or use another optimizer"
    if optimizer == OWN_OPTIMIZER:
        return f"the {name} of the optimizer of the module is not known", "name an optimizer of torch.optim instead"
    argument = "`betas`, a list of two numbers," if name in BETAS else f"`{name}`"
    return f"the {name} of {optimizer} is not known", f"add {argument} to optimizer.arguments"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def scale(name: str, value: float, ratio: float, exponent: float) -> float:
    """Return a hyperparameter of another batch size: h·κ^p, for decay rates 1 − (1 − h)·κ^p.

    Args:
        name: Name of the hyperparameter.
        value: h, its value at the base batch size.
        ratio: κ = B/B₀.
        exponent: p.

    Returns:
        The scaled h or 1 − h to six significant digits; exactly h if κ^p is 1.

    Raises:
        ScalingError: The result is no number, or no decay rate between 0 and 1.
    """
    factor = power(ratio, exponent)
    if factor == 1 or (value == 0 and name not in DECAY_RATES):
        return value
    if name not in DECAY_RATES:
        return _in_range(name, round_digits(value * factor))
    return _in_range(name, _round_decay_rate((1 - value) * factor))


def scale_half_life(value: float, ratio: float) -> float:
    """Return the decay rate with the same half-life in examples, h^κ (Marek et al. 2025).

    The half-life is log ½ / log h steps of B examples.

    Args:
        value: h, the decay rate at the base batch size.
        ratio: κ = B/B₀.

    Returns:
        The decay rate, 1 − h^κ to six significant digits.

    Raises:
        ScalingError: The result is not between 0 and 1.
    """
    if ratio == 1:
        return value
    # Precise where h is close to 1: 1 − exp(κ·log h).
    distance = -math.expm1(ratio * math.log(value)) if value > 0 else 1.0
    return _in_range("beta2", _round_decay_rate(distance))


def keep_time_scale(weight_decay: float, ratio: float, rate_ratio: float) -> float:
    """Return the weight decay λ with which the time scale of the weights stays, λ₀·κ·η₀/η.

    AdamW's weights are a moving average of its updates over 1/(η·λ) steps, which are B/(η·λ·D) epochs of D examples
    (Wang & Aitchison 2024; Bergsma et al. 2025).

    Args:
        weight_decay: λ₀ at the base batch size.
        ratio: κ = B/B₀.
        rate_ratio: η/η₀, the learning rate over that at the base batch size.

    Returns:
        λ to six significant digits; exactly λ₀ if nothing changes.

    Raises:
        ScalingError: λ₀ is 0, or the result is no number.
    """
    if weight_decay == 0:
        raise ScalingError("weight_decay", "weight_decay is 0, so that there is no time scale to keep")
    factor = ratio / rate_ratio
    return weight_decay if factor == 1 else _in_range("weight_decay", round_digits(weight_decay * factor))


def power(ratio: float, exponent: float) -> float:
    """Return κ^p, infinite if it is too large for a float."""
    try:
        return float(ratio**exponent)
    except OverflowError:
        return math.inf


def is_equal(name: str, first: float, second: float) -> bool:
    """Return whether two values of a hyperparameter are the same to six significant digits."""
    if name in DECAY_RATES:
        first, second = 1 - first, 1 - second
    return round_digits(first) == round_digits(second)


def round_digits(value: float) -> float:
    """Return a value to six significant digits: names of runs contain it, and 0.01·3 is 0.03 only to sixteen digits."""
    return float(f"{value:.6g}")


def _round_decay_rate(distance: float) -> float:
    """Return 1 − `distance`, with six significant digits of the latter: those of 0.9999 would be too few."""
    if not math.isfinite(distance):
        return -math.inf
    return float(1 - Decimal(f"{distance:.6g}"))


def _in_range(name: str, value: float) -> float:
    if name in DECAY_RATES:
        if not 0 < value < 1:
            raise ScalingError(name, f"{name} = {value:g}, which must be between 0 and 1")
        return value
    # Names of runs contain these numbers.
    if not 1e-30 <= value <= 1e30:
        raise ScalingError(name, f"{name} = {value:g}, which must be between 1e-30 and 1e30")
    return value
