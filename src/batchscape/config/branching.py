"""Section `branching`: the critical batch size during training, measured by branching."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from batchscape.config.base import (
    AsTuple,
    Distinct,
    FromText,
    JobSelection,
    Section,
    cross_field_error,
)
from batchscape.config.budget import Budget
from batchscape.config.landscape import Seeds, Settings

Factor = Annotated[int, Field(ge=2)]
# Evaluations in a branch, so that its training loss can be averaged over a share of it.
NUM_EVALUATIONS = 8
# By rule: the power of the factor by which the learning rate is multiplied.
RATE_EXPONENTS = {"constant": 0.0, "linear": 1.0, "sqrt": 0.5}


class BranchingConfig(Section):
    """Branches that continue a run from points in its training with a multiple of its batch size, over equally many
    examples. The largest batch size that reaches the same loss is the critical one there (Merrill et al. 2025)."""

    enabled: Annotated[bool, JobSelection] = False
    """`true` enables this analysis. The runs that it branches from save their states at the points; of a run that was
    trained before, a copy is trained up to them."""

    settings: Settings = None
    """Settings of the runs to branch from, as in `landscape`; by default the small batch size at
    `comparison.fixed_learning_rate`. Their learning rate has to be constant after the warm-up, without stages."""

    seeds: Seeds = None
    """Seeds of these runs; by default all of the grid."""

    points: Annotated[
        tuple[Budget, ...],
        Field(min_length=1, examples=[[{"epochs": 1}, {"epochs": 4}]]), AsTuple, Distinct, JobSelection,
    ] = (Budget(epochs=1), Budget(epochs=4), Budget(epochs=16))  # fmt: skip
    """Where branches begin, in `epochs`, `examples` or `steps`: after the first evaluation from there on."""

    factors: Annotated[
        tuple[Factor, ...], Field(min_length=1, examples=[[2, 4, 8]]), AsTuple, Distinct, JobSelection
    ] = (2, 4, 8)  # fmt: skip
    """Multiples of the batch size, one branch each; there is always one with the batch size of the run itself."""

    rule: Literal["constant", "linear", "sqrt"] = "linear"
    """How the learning rate follows the factor: not, in proportion, as for SGD, or with its square root, as for Adam.
    All other hyperparameters are those of the run."""

    length: Annotated[Budget, Field(examples=[{"epochs": 1}])] = Budget(epochs=1)
    """Length of a branch, in `epochs` or `examples`."""

    smoothing: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False, examples=[0.5]), FromText] = 0.5
    """Share of a branch, at its end, over which its training loss is averaged."""

    tolerance: Annotated[
        float, Field(gt=0, allow_inf_nan=False, examples=[0.01]), FromText, JobSelection
    ] = 0.01  # fmt: skip
    """How much higher the loss of a branch may be, relative to that of the branch with the batch size of the run."""

    batch_warmup: Annotated[bool, JobSelection] = False
    """`true` adds the arm `batch_warmup`: for each of `settings`, runs with all seeds of the grid whose batch size is
    from each point on the largest critical one measured until there, at a learning rate that follows by `rule`. The
    budget has to be in epochs or examples."""

    @model_validator(mode="after")
    def _length_is_in_examples(self) -> Self:
        if self.length.steps is not None:
            raise cross_field_error(
                "length", "is in steps, but all branches have to see equally many examples; give epochs or examples"
            )
        return self
