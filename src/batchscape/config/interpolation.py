"""Section `interpolation`: the loss on the line through the weights of two runs."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from batchscape.config.base import AsPair, AsTuple, Distinct, FromText, JobSelection, Section, cross_field_error
from batchscape.config.checkpoint import Checkpoint

Alpha = Annotated[float, Field(allow_inf_nan=False), FromText]
Pair = Annotated[tuple[str, str], AsPair]


class InterpolationConfig(Section):
    """Loss and metrics at θ(α) = (1 − α)·θ_first + α·θ_second, seed by seed."""

    enabled: Annotated[bool, JobSelection] = True
    """`false` disables this analysis."""

    pairs: Annotated[
        tuple[Pair, ...] | None,
        Field(min_length=1, examples=[[["bs32-lr0.01", "bs256-lr0.08"]]]), AsTuple, Distinct, JobSelection,
    ] = None  # fmt: skip
    """Pairs of settings, each `bs{batch size}-lr{learning rate}` of a run; by default the small
    and the large batch size at `comparison.fixed_learning_rate`."""

    checkpoint: Annotated[Checkpoint, Field(examples=["best"])] = "best"
    """Weights of both runs: `init`, `best`, `last`, `average`, or an epoch of `training.checkpoints`."""

    alpha_range: Annotated[tuple[Alpha, Alpha], Field(examples=[[-1, 2]]), AsPair] = (-1.0, 2.0)
    """First and last α."""

    points: Annotated[int, Field(ge=2, examples=[31])] = 31
    """Number of equidistant α."""

    batch_norm: Literal["re-estimate", "interpolate", "fixed"] = "re-estimate"
    """BatchNorm statistics on the line: re-estimated on the training examples at each α, interpolated like the
    weights, or those of the first run. Other buffers of floats are interpolated in the first two cases."""

    @model_validator(mode="after")
    def _pairs_differ(self) -> Self:
        same = [first for first, second in self.pairs or () if first == second]
        if same:
            raise cross_field_error("pairs", f"a pair needs two different settings, got {same[0]} twice")
        return self

    @model_validator(mode="after")
    def _alpha_range_ascends(self) -> Self:
        if self.alpha_range[0] >= self.alpha_range[1]:
            raise cross_field_error(
                "alpha_range", "the first α must be below the last; write for example `alpha_range: [-1, 2]`"
            )
        return self
