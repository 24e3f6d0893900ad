"""Batch size schedules: the stages of a run, listed in an arm or derived from the decay of the learning rate."""

import math
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from batchscape.config.base import AsTuple, FromText, PositiveInt, Section, cross_field_error
from batchscape.config.budget import Budget, Warmup
from batchscape.config.schedule import ScheduleConfig

# Stages that begin later would have hardly any steps.
MAX_START = 0.99


class StageConfig(Section):
    """A stage of a run, from some step on, with another batch size and learning rate."""

    start: Annotated[Warmup, Field(examples=[{"fraction": 0.5}])]
    """Where it begins, in `steps`, `epochs`, `examples` or as a `fraction` of the budget."""

    batch_size_factor: Annotated[PositiveInt, Field(examples=[4])]
    """The batch size, as a multiple of that of the run."""

    learning_rate_factor: Annotated[float, Field(gt=0, allow_inf_nan=False, examples=[1.0]), FromText] = 1.0
    """Factor of the learning rate, besides that of the schedule."""


class GrowthConfig(Section):
    """Growing the batch where the schedule would lower the learning rate: in place of its decay."""

    factor: Annotated[int, Field(ge=2, examples=[2])] = 2
    """Each time that the decay of `schedule` would have divided the learning rate by this factor, the batch size is
    multiplied by it."""

    rule: Literal["linear", "sqrt"] = "linear"
    """`linear`, for SGD: the learning rate stays (Smith et al. 2018). `sqrt`, for Adam: it is divided by the square
    root of the factor (Meterez et al. 2025)."""

    max_batch_size: Annotated[PositiveInt | None, Field(examples=[1024])] = None
    """The largest batch size; from then on the learning rate is divided by the factor instead. `null`: none."""


Stages = tuple[StageConfig, ...]


class MeasuredStages(Section):
    """The stages that follow from measurements: the part of a run's specification that is not in the study file.

    Attributes:
        stages: The stages, in their order.
    """

    stages: Annotated[Stages, AsTuple]


def check_stages(stages: Stages) -> None:
    """Raise a cross-field error if stages that start in the same unit are not in their order."""
    for index, (stage, following) in enumerate(pairwise(stages)):
        if stage.start.unit == following.start.unit and not stage.start.amount < following.start.amount:
            raise cross_field_error(
                f"stages[{index + 1}].start",
                f"{following.start} is not after the stage before it, {stage.start}; list stages in their order",
            )


def fraction_of(length: Budget, budget: Budget) -> float:
    """Return a length as a fraction of the budget, at most 1; nan if it is in another unit."""
    if length.unit not in ("fraction", budget.unit):
        return math.nan
    return length.amount if length.unit == "fraction" else min(1.0, length.amount / budget.amount)


class HasStages(Section):
    """The keys of an arm that change the batch size during a run."""

    stages: Annotated[
        tuple[StageConfig, ...] | None,
        Field(min_length=1, examples=[[{"start": {"fraction": 0.5}, "batch_size_factor": 4}]]),
        AsTuple,
    ] = None
    """Stages with other batch sizes, in their order; the schedule is that of the study."""

    growth: Annotated[GrowthConfig | None, Field(examples=[{"factor": 2}])] = None
    """Stages that follow from the decay of `schedule`, and replace it."""

    @model_validator(mode="after")
    def _has_one_kind_of_stages(self) -> Self:
        if self.stages is not None and self.growth is not None:
            raise cross_field_error("growth", "decides the stages, and so does `stages`; remove one")
        check_stages(self.stages or ())
        return self


def grow(growth: GrowthConfig, schedule: ScheduleConfig, batch_size: int, budget: Budget) -> Stages:
    """Return the stages in which the batch grows where a schedule would lower the learning rate.

    The k-th stage begins where the decay reaches `factor`^−k. Its start is a fraction of the budget: if that is in
    examples or epochs, a fraction of the examples, since larger batches take fewer steps (Smith et al. 2018).

    Args:
        growth: How the batch grows.
        schedule: The schedule with the decay that is replaced; its warm-up is a fraction, or in the unit of the budget.
        batch_size: Batch size of the run at first.
        budget: The budget of the run.

    Returns:
        The stages, to the end of the decay or 99 % of the budget.
    """
    stages = []
    begin = 1 - schedule.decay_fraction
    if schedule.warmup:
        begin = max(begin, fraction_of(schedule.warmup, budget))
    largest = growth.max_batch_size or math.inf
    batch_factor, count = 1, 0
    while True:
        count += 1
        remaining = growth.factor**-count
        if remaining < schedule.final_factor:
            break
        start = round(begin + (1 - begin) * _progress(schedule, remaining), 4)
        if start > MAX_START:
            break
        if batch_size * batch_factor * growth.factor <= largest:
            batch_factor *= growth.factor
        rate = remaining * batch_factor / (math.sqrt(batch_factor) if growth.rule == "sqrt" else 1)
        stages.append(
            StageConfig(
                start=Warmup(fraction=start), batch_size_factor=batch_factor, learning_rate_factor=float(f"{rate:.6g}")
            )
        )
    return tuple(stages)


def _progress(schedule: ScheduleConfig, factor: float) -> float:
    """Return the fraction of the decay after which the learning rate has a factor: the inverse of the schedule."""
    value = (factor - schedule.final_factor) / (1 - schedule.final_factor)
    if schedule.decay == "linear":
        return 1 - value
    if schedule.decay == "cosine":
        return math.acos(2 * value - 1) / math.pi
    return (1 - value) ** 2
