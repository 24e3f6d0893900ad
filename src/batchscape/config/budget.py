"""Lengths of training: budgets, intervals and warm-ups."""

import math
from typing import Annotated, Self

from pydantic import Field, model_validator

from batchscape.config.base import FromText, PositiveInt, Section, cross_field_error


class Budget(Section):
    """A length of training, in one unit: optimizer steps, epochs, or training examples."""

    steps: Annotated[PositiveInt | None, Field(examples=[1000])] = None
    """Optimizer steps."""

    epochs: Annotated[PositiveInt | None, Field(examples=[20])] = None
    """Passes over the training set."""

    examples: Annotated[PositiveInt | None, Field(examples=[100000])] = None
    """Training examples, counted again in each epoch; rounded up to full steps."""

    @model_validator(mode="after")
    def _has_one_unit(self) -> Self:
        given = [unit for unit in type(self).model_fields if getattr(self, unit) is not None]
        if len(given) != 1:
            *others, last = type(self).model_fields
            units = f"{', '.join(others)} or {last}"
            problem = f"has {' and '.join(given)}" if given else "has none"
            raise cross_field_error(given[-1] if given else "steps", f"give exactly one of {units}; this {problem}")
        return self

    @property
    def unit(self) -> str:
        """The unit that is given."""
        return next(unit for unit in type(self).model_fields if getattr(self, unit) is not None)

    @property
    def amount(self) -> float:
        """The number in that unit."""
        return float(getattr(self, self.unit))

    def in_epochs(self, batch_size: int, num_examples: int) -> float:
        """Return the length in epochs, but for the rounding to full steps."""
        if self.steps is not None:
            return self.steps / math.ceil(num_examples / batch_size)
        return float(self.epochs or 0) + (self.examples or 0) / num_examples

    def __str__(self) -> str:
        amount, unit = getattr(self, self.unit), self.unit
        return f"{amount} {unit.removesuffix('s') if amount == 1 else unit}"


class Warmup(Budget):
    """The length of a warm-up, in one unit."""

    fraction: Annotated[float | None, Field(gt=0, le=1, allow_inf_nan=False, examples=[0.1]), FromText] = None
    """Fraction of the budget of the run."""

    def __str__(self) -> str:
        return super().__str__() if self.fraction is None else f"{100 * self.fraction:g} % of the budget"


POINT_PATTERN = r"\d+(?:epochs|examples|steps)"
"""What the names of all points match: the wildcards of rules are constrained to it."""


def point_name(point: Budget) -> str:
    """Return the name of a point of a training in the names of files, such as `4epochs`."""
    return f"{point.amount:.0f}{point.unit}"


def parse_point(name: str) -> Budget:
    """Return the point with a name."""
    unit = name.lstrip("0123456789")
    return Budget.model_validate({unit: int(name.removesuffix(unit))})
