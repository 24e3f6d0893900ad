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
    """How one run trains, whatever its batch size, learning rate and seed."""

    max_epochs: Annotated[PositiveInt, Field(examples=[2000])] = 2000
    """A run that still improves after this many epochs ends with the status `max_epochs`."""

    patience: Annotated[PositiveInt, Field(examples=[20])] = 20
    """A run ends as `converged` after this many epochs without a lower validation loss."""

    loss: Literal["auto", "binary_cross_entropy", "cross_entropy"] = "auto"
    """`binary_cross_entropy`: one output, the logit of the second of two classes. `cross_entropy`: one output a class
    (softmax). `auto`: the first for two classes, the second for more."""

    reshuffle: bool = True
    """`false` gives every epoch of a run the same batches, as in Chang & Pathak 2020."""

    augment_flip: bool = False
    """Mirror every second training image, left to right, by chance, anew in every epoch."""

    augment_shift: Annotated[int, Field(ge=0, examples=[4])] = 0
    """Shift every training image by chance by at most so many pixels, each way, anew in every epoch; what comes in is
    black. Validation and the analyses see images as they are."""

    momentum: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False, examples=[0.9]), FromText] = 0.0
    """Momentum of SGD; 0 is plain SGD."""

    weight_decay: Annotated[NonNegativeReal, Field(examples=[0.0001])] = 0.0
    """L2 penalty factor of SGD."""

    checkpoints: Annotated[tuple[PositiveInt, ...], Field(examples=[[1, 10, 100]]), AsTuple, Distinct] = ()
    """Epochs after which the weights are kept, besides `init`, `best` and `last`."""

    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """Where runs train; `auto` takes a CUDA GPU when there is one."""

    @model_validator(mode="after")
    def _checkpoints_are_reachable(self) -> Self:
        late = [epoch for epoch in self.checkpoints if epoch > self.max_epochs]
        if late:
            raise cross_field_error(
                "checkpoints",
                f"epoch {late[0]} is after max_epochs {self.max_epochs}; take it out or raise max_epochs",
            )
        return self
