"""Sections `grid` and `training`: which runs there are, and how each one trains."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from batchscape.config.base import (
    AsTuple,
    Distinct,
    NonNegativeReal,
    PositiveInt,
    PositiveReal,
    Real,
    Section,
    Seed,
)


class GridConfig(Section):
    """The grid: each batch size trains at each learning rate with each seed."""

    batch_sizes: Annotated[
        tuple[PositiveInt, ...], Field(min_length=1, examples=[[32, 64, 128, 256]]), AsTuple, Distinct
    ] = (32, 64, 128, 256)
    """Global batch sizes: examples per optimiser step, summed over devices."""

    learning_rates: Annotated[
        tuple[PositiveReal, ...], Field(min_length=1, examples=[[0.01, 0.02, 0.04, 0.08]]), AsTuple, Distinct
    ] = (0.01, 0.02, 0.04, 0.08)
    """Learning rates of the grid."""

    seeds: Annotated[tuple[Seed, ...], Field(min_length=1, examples=[[0, 1, 2]]), AsTuple, Distinct] = (0, 1, 2)
    """Seeds; a seed fixes the initial weights and the order of the batches, so runs of one seed are pairs."""


class TrainingConfig(Section):
    """How one run trains, whatever its batch size, learning rate and seed."""

    max_epochs: Annotated[PositiveInt, Field(examples=[2000])] = 2000
    """A run that still improves after this many epochs ends with the status `max_epochs`."""

    patience: Annotated[PositiveInt, Field(examples=[30])] = 30
    """A run ends as `converged` after this many epochs without a lower validation loss."""

    momentum: Annotated[Real, Field(ge=0, lt=1, examples=[0.9])] = 0.0
    """Momentum of SGD; 0 is plain SGD."""

    weight_decay: Annotated[NonNegativeReal, Field(examples=[0.0001])] = 0.0
    """L2 penalty factor of SGD."""

    snapshots: Annotated[tuple[PositiveInt, ...], Field(examples=[[1, 10, 100]]), AsTuple, Distinct] = ()
    """Epochs after which the weights are kept, besides `init`, `best` and `last`."""

    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """Where runs train; `auto` takes a CUDA GPU when there is one."""

    @model_validator(mode="after")
    def _snapshots_are_reachable(self) -> Self:
        late = [epoch for epoch in self.snapshots if epoch > self.max_epochs]
        if late:
            raise ValueError(
                f"snapshots: epoch {late[0]} is after max_epochs {self.max_epochs}; take it out or raise max_epochs"
            )
        return self
