"""The space of a search: one coordinate for each hyperparameter, on a logarithmic scale."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from optuna.distributions import BaseDistribution, FloatDistribution

from batchscape.config.scaling import DECAY_RATES, LEARNING_RATE, round_digits

Point = Mapping[str, float]
"""Coordinates by name, as the journal has them."""

COMPLEMENT = "1 - "
# Within this fraction of the logarithmic width of a range, a value is at its end.
EDGE_FRACTION = 0.05
# No range extends beyond: names of runs contain learning rates; a decay rate is below 1, and a fraction at most 1. For
# momentum this is 1 − momentum: Nesterov's needs one above 0.
BOUNDS = {
    LEARNING_RATE: (1e-30, 1e30), "warmup": (1e-6, 1.0), "weight_decay": (1e-30, 1e30), "momentum": (1e-9, 0.999),
}  # fmt: skip
DECAY_RATE_BOUNDS = (1e-9, 1.0)
ROUNDING = 1e-9


@dataclass(frozen=True)
class Space:
    """The ranges of a search, and how far they may extend.

    Attributes:
        low: The lower ends by coordinate; the first coordinate is the learning rate.
        high: The upper ends.
        lower_limits: The lowest values to which the ranges may extend.
        upper_limits: The highest values.
        spacing: The factor between neighbors of the grid, by coordinate.
    """

    low: Point
    high: Point
    lower_limits: Point
    upper_limits: Point
    spacing: Point

    @classmethod
    def of(cls, ranges: Mapping[str, tuple[float, float]], max_extension: float, num_points: int) -> Self:
        """Return the space of ranges of hyperparameters.

        Args:
            ranges: The lowest and the highest value by name; the learning rate is the first.
            max_extension: Factor by which a range may extend beyond either end.
            num_points: Number of points of a grid over a range.
        """
        low, high, lowest, highest = {}, {}, {}, {}
        for hyperparameter, values in ranges.items():
            name = coordinate_name(hyperparameter)
            low[name], high[name] = sorted(_to_coordinate(hyperparameter, value) for value in values)
            first, last = BOUNDS.get(hyperparameter, DECAY_RATE_BOUNDS)
            lowest[name] = min(low[name], max(first, low[name] / max_extension))
            highest[name] = max(high[name], min(last, high[name] * max_extension))
        spacing = {name: (high[name] / low[name]) ** (1 / (num_points - 1)) for name in low}
        return cls(low, high, lowest, highest, spacing)

    def including(self, points: Sequence[Point]) -> Self:
        """Return the space whose ranges include points, up to the limits."""
        low = {
            name: max(min(value, *(point[name] for point in points)), self.lower_limits[name])
            for name, value in self.low.items()
        }
        high = {
            name: min(max(value, *(point[name] for point in points)), self.upper_limits[name])
            for name, value in self.high.items()
        }
        return replace(self, low=low, high=high)

    def allows(self, point: Point) -> bool:
        """Return whether a point is within the limits, but for rounding."""
        return all(
            self.lower_limits[name] * (1 - ROUNDING) <= value <= self.upper_limits[name] * (1 + ROUNDING)
            for name, value in point.items()
        )

    def clip(self, point: Point) -> dict[str, float]:
        """Return the point of the ranges that is closest to a point."""
        return {name: min(max(value, self.low[name]), self.high[name]) for name, value in point.items()}

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """Optuna's distributions over the ranges."""
        return {name: FloatDistribution(self.low[name], self.high[name], log=True) for name in self.low}

    def beyond(self, point: Point, names: Collection[str]) -> dict[str, float] | None:
        """Return the next point beyond the first end of a range at which a point is; None if it is at none.

        Only the ranges of the coordinates in `names` count, and those that have not reached their limit.
        """
        for name, value in point.items():
            if name not in names:
                continue
            low, high = self.low[name], self.high[name]
            place = np.log(value / low) / np.log(high / low)
            if place <= EDGE_FRACTION and low > self.lower_limits[name]:
                return {**point, name: max(low / self.spacing[name], self.lower_limits[name])}
            if place >= 1 - EDGE_FRACTION and high < self.upper_limits[name]:
                return {**point, name: min(high * self.spacing[name], self.upper_limits[name])}
        return None


def grid(space: Space, values: Mapping[str, float], num_points: int) -> list[dict[str, float]]:
    """Return the points of the grid: a logarithmic one of learning rates.

    Args:
        space: The space.
        values: The hyperparameters of the study; those outside their range, or without a value, are in its middle.
        num_points: Number of learning rates, which include the ends of the range.
    """
    fixed = {}
    for name in space.low:
        hyperparameter = hyperparameter_name(name)
        coordinate = _to_coordinate(hyperparameter, values.get(hyperparameter, math.nan))
        is_inside = space.low[name] <= coordinate <= space.high[name]
        fixed[name] = coordinate if is_inside else math.sqrt(space.low[name] * space.high[name])
    rates = np.geomspace(space.low[LEARNING_RATE], space.high[LEARNING_RATE], num_points)
    return [{**fixed, LEARNING_RATE: float(rate)} for rate in rates]


def coordinate_name(hyperparameter: str) -> str:
    """Return the name of the coordinate of a hyperparameter."""
    return f"{COMPLEMENT}{hyperparameter}" if hyperparameter in DECAY_RATES else hyperparameter


def hyperparameter_name(coordinate: str) -> str:
    """Return the name of the hyperparameter of a coordinate."""
    return coordinate.removeprefix(COMPLEMENT)


def to_hyperparameters(point: Point) -> dict[str, float]:
    """Return the hyperparameters of a point; decay rates have six digits of their distance to 1."""
    return {
        hyperparameter_name(name): 1 - round_digits(value) if name.startswith(COMPLEMENT) else value
        for name, value in point.items()
    }


def _to_coordinate(hyperparameter: str, value: float) -> float:
    # Ten digits: 1 − 0.99 is not 0.01.
    return float(f"{1 - value:.10g}") if hyperparameter in DECAY_RATES else value
