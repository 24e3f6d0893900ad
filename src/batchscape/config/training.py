"""Section `training`: how each run trains."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from batchscape.config.base import (
    AsTuple,
    Distinct,
    PositiveInt,
    Section,
    cross_field_error,
)
from batchscape.config.budget import Budget


class TrainingConfig(Section):
    """How runs of all batch sizes, learning rates and seeds train."""

    budget: Annotated[Budget, Field(examples=[{"epochs": 2000}])] = Budget(epochs=2000)
    """Length of a run, in `steps`, `epochs` or `examples`. A run that has not converged by then ends with the status
    `budget_spent`, or `completed` if there is no `patience`."""

    evaluate_every: Annotated[Budget, Field(examples=[{"epochs": 1}])] = Budget(epochs=1)
    """Interval between two evaluations, in `steps`, `epochs` or `examples`: each is a row of the history. Runs are also
    evaluated after the epochs of `checkpoints` and at their end."""

    patience: Annotated[PositiveInt | None, Field(examples=[20])] = 20
    """A run ends as `converged` after this many evaluations without a lower validation loss; `null`: all runs train for
    their complete budget, as a schedule that decays expects."""

    reshuffle: bool = True
    """`false` gives every epoch of a run the same batches, as in Chang & Pathak 2020."""

    augment_flip: bool = False
    """Flip each training image horizontally with probability 0.5, drawn again in every epoch."""

    augment_shift: Annotated[int, Field(ge=0, examples=[4])] = 0
    """Shift each training image by a random offset of at most this many pixels in each direction, zero-padded, drawn
    again in every epoch. Validation and the analyses use unchanged images."""

    precision: Literal["float32", "tf32", "bf16"] = "float32"
    """`tf32`: matrix products and convolutions of GPUs since Ampere round their inputs to ten bits; elsewhere it is
    float32. `bf16`: the forward pass runs in bfloat16 where torch's autocast has it, on GPUs and CPUs. Weights,
    gradients, optimizer and losses stay float32, as do evaluations and all analyses."""

    checkpoints: Annotated[tuple[PositiveInt, ...], Field(examples=[[1, 10, 100]]), AsTuple, Distinct] = ()
    """Epochs after which the weights are saved, besides `init`, `best` and `last`."""

    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """Where runs train; `auto` uses a CUDA GPU if there is one."""

    @model_validator(mode="after")
    def _checkpoints_are_reachable(self) -> Self:
        limit = self.budget.epochs
        late = [epoch for epoch in self.checkpoints if limit is not None and epoch > limit]
        if late:
            raise cross_field_error(
                "checkpoints", f"epoch {late[0]} is after budget.epochs, {limit}; remove it or raise the budget"
            )
        return self
