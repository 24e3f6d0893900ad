"""Section `training`: how each run trains."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from batchscape.config.base import (
    AsTuple,
    Distinct,
    FromText,
    NonNegativeReal,
    PositiveInt,
    Section,
    misfit,
)


class TrainingConfig(Section):
    """How one run trains, whatever its batch size, learning rate and seed."""

    max_epochs: Annotated[PositiveInt, Field(examples=[2000])] = 2000
    """A run that still improves after this many epochs ends with the status `max_epochs`."""

    patience: Annotated[PositiveInt, Field(examples=[20])] = 20
    """A run ends as `converged` after this many epochs without a lower validation loss."""

    momentum: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False, examples=[0.9]), FromText] = 0.0
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
            raise misfit(
                "snapshots",
                f"epoch {late[0]} is after max_epochs {self.max_epochs}; take it out or raise max_epochs",
            )
        return self
