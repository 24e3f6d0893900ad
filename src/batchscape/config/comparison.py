"""Section `comparison`: what the tables and figures set side by side."""

from typing import Annotated

from pydantic import Field

from batchscape.config.base import FromText, LearningRate, PositiveInt, Section


class ComparisonConfig(Section):
    """What the comparisons single out. A learning rate that is not in the grid trains as well; a batch size must be in
    the grid."""

    fixed_learning_rate: Annotated[LearningRate, Field(examples=[0.01])] = 0.01
    """The one learning rate at which all batch sizes are compared (the `fixed` arm)."""

    high_learning_rate: Annotated[LearningRate, Field(examples=[0.08])] = 0.08
    """A high learning rate at which all batch sizes are compared (the `high` arm): which one wins there?"""

    small_batch_size: Annotated[PositiveInt | None, Field(examples=[32])] = None
    """The small batch of small-against-large comparisons; the smallest of the grid if left out."""

    large_batch_size: Annotated[PositiveInt | None, Field(examples=[256])] = None
    """The large batch of small-against-large comparisons; the largest of the grid if left out."""

    target_loss: Annotated[
        Annotated[float, Field(gt=0, allow_inf_nan=False), FromText] | None, Field(examples=[0.05])
    ] = None
    """The validation loss, in nats, to which steps and epochs are counted. If left out, the least one that every batch
    size reaches with all seeds at one of its learning rates."""
