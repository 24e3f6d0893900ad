"""Section `landscape`: the loss on a plane of two random directions around the weights of a run."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from batchscape.config.base import (
    AsPair,
    AsTuple,
    Distinct,
    FromText,
    JobSelection,
    PositiveInt,
    Section,
    Seed,
    cross_field_error,
)
from batchscape.config.checkpoint import Checkpoint

Coordinate = Annotated[float, Field(allow_inf_nan=False), FromText]
Range = Annotated[tuple[Coordinate, Coordinate], AsPair, Field(examples=[[-1, 1]])]
Settings = Annotated[
    tuple[str, ...] | None,
    Field(min_length=1, examples=[["bs32-lr0.01", "bs256-lr0.01"]]), AsTuple, Distinct, JobSelection,
]  # fmt: skip
Seeds = Annotated[tuple[Seed, ...] | None, Field(min_length=1, examples=[[0]]), AsTuple, Distinct, JobSelection]
Points = Annotated[int, Field(ge=2, le=2000)]
GridPoints = Annotated[tuple[Points, Points], AsPair, Field(examples=[[51, 51]])]


class LandscapeConfig(Section):
    """The training loss at θ + x·d₁ + y·d₂, with filter-normalized random directions (Li et al. 2018)."""

    enabled: Annotated[bool, JobSelection] = True
    """`false` disables this analysis."""

    settings: Settings = None
    """Settings to compare, each `bs{batch size}-lr{learning rate}` of a run; by default the small
    and the large batch size at `comparison.fixed_learning_rate`."""

    seeds: Seeds = None
    """Seeds of the runs; by default the first of the grid."""

    checkpoint: Annotated[Checkpoint, Field(examples=["best"])] = "best"
    """Weights at the center: `init`, `best`, `last`, `average`, or an epoch of `training.checkpoints`."""

    x_range: Range = (-1.0, 1.0)
    """First and last x."""

    y_range: Range = (-1.0, 1.0)
    """First and last y."""

    points: GridPoints = (51, 51)
    """Number of equidistant x and y."""

    direction_seeds: Annotated[
        tuple[Seed, ...], Field(min_length=1, examples=[[0]]), AsTuple, Distinct, JobSelection
    ] = (0,)
    """One seed per pair of directions; all settings share the pairs."""

    points_per_job: Annotated[PositiveInt, Field(examples=[3000]), JobSelection] = 3000
    """A larger grid is split into jobs of at most this many points, which fail and rerun independently."""

    batch_norm: Literal["re-estimate", "fixed"] = "re-estimate"
    """BatchNorm statistics: re-estimated on the training examples at each point, or those of the center. No
    effect without BatchNorm."""

    @model_validator(mode="after")
    def _ranges_ascend(self) -> Self:
        for key in ("x_range", "y_range"):
            low, high = getattr(self, key)
            if low >= high:
                raise cross_field_error(
                    key,
                    f"the first value, {low:g}, must be below the last, {high:g}; write for example `{key}: [-1, 1]`",
                )
        return self
