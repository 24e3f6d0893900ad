"""Section `comparison`: what the tables and figures compare."""

from typing import Annotated

from pydantic import Field

from batchscape.config.base import FromText, LearningRate, PositiveInt, Section


class ComparisonConfig(Section):
    """Learning rates and batch sizes of the comparisons. Both learning rates are trained even if absent from the grid;
    the batch sizes must be in it."""

    fixed_learning_rate: Annotated[LearningRate, Field(examples=[0.01])] = 0.01
    """The learning rate at which all batch sizes are compared (the `fixed` arm)."""

    high_learning_rate: Annotated[LearningRate, Field(examples=[0.08])] = 0.08
    """A high learning rate at which all batch sizes are compared (the `high` arm)."""

    small_batch_size: Annotated[PositiveInt | None, Field(examples=[32])] = None
    """The small batch size of comparisons of small and large; by default the smallest of the grid."""

    large_batch_size: Annotated[PositiveInt | None, Field(examples=[256])] = None
    """The large batch size of comparisons of small and large; by default the largest of the grid."""

    target_loss: Annotated[Annotated[float, Field(allow_inf_nan=False), FromText] | None, Field(examples=[0.05])] = None
    """The validation loss up to which steps and epochs are counted, in the unit of the task's loss. By default the
    lowest that every batch size reaches with all seeds at one of its learning rates."""
