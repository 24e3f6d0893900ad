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
    cross_field_error,
)


class TrainingConfig(Section):
    """How runs of all batch sizes, learning rates and seeds train."""

    max_epochs: Annotated[PositiveInt, Field(examples=[2000])] = 2000
    """A run that has not converged after this many epochs ends with the status `max_epochs`."""

    patience: Annotated[PositiveInt, Field(examples=[20])] = 20
    """A run ends as `converged` after this many epochs without a lower validation loss."""

    reshuffle: bool = True
    """`false` gives every epoch of a run the same batches, as in Chang & Pathak 2020."""

    augment_flip: bool = False
    """Flip each training image horizontally with probability 0.5, drawn again in every epoch."""

    augment_shift: Annotated[int, Field(ge=0, examples=[4])] = 0
    """Shift each training image by a random offset of at most this many pixels in each direction, zero-padded, drawn
    again in every epoch. Validation and the analyses use unchanged images."""

    momentum: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False, examples=[0.9]), FromText] = 0.0
    """Momentum of SGD; 0 is plain SGD."""

    weight_decay: Annotated[NonNegativeReal, Field(examples=[0.0001])] = 0.0
    """L2 penalty factor of SGD."""

    checkpoints: Annotated[tuple[PositiveInt, ...], Field(examples=[[1, 10, 100]]), AsTuple, Distinct] = ()
    """Epochs after which the weights are saved, besides `init`, `best` and `last`."""

    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """Where runs train; `auto` uses a CUDA GPU if there is one."""

    @model_validator(mode="after")
    def _checkpoints_are_reachable(self) -> Self:
        late = [epoch for epoch in self.checkpoints if epoch > self.max_epochs]
        if late:
            raise cross_field_error(
                "checkpoints",
                f"epoch {late[0]} is after max_epochs {self.max_epochs}; remove it or raise max_epochs",
            )
        return self
