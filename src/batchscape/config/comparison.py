"""Section `comparison`: what the tables and figures set side by side."""

from typing import Annotated

from pydantic import Field

from batchscape.config.base import LearningRate, PositiveInt, Section


class ComparisonConfig(Section):
    """The learning rates and batch sizes that the comparisons single out; they train if the grid has them not."""

    fixed_lr: Annotated[LearningRate, Field(examples=[0.01])] = 0.01
    """Learning rate of the `fixed` arm: every batch size at this one rate."""

    high_lr: Annotated[LearningRate, Field(examples=[0.08])] = 0.08
    """Learning rate of the `high` arm: which batch size wins when the rate is high?"""

    small_batch: Annotated[PositiveInt | None, Field(examples=[32])] = None
    """The small batch of small-against-large comparisons; the smallest of the grid if left out."""

    large_batch: Annotated[PositiveInt | None, Field(examples=[256])] = None
    """The large batch of small-against-large comparisons; the largest of the grid if left out."""
