"""Section `gradient_alignment`: how far the gradients of single examples agree."""

from typing import Annotated

from pydantic import AfterValidator, Field

from batchscape.config.base import JobSelection, PositiveInt, Section, Seed
from batchscape.config.checkpoint import Checkpoints


def _power_of_two(value: int) -> int:
    if value & (value - 1):
        raise ValueError(f"must be a power of two, got {value}; write for example `256`")
    return value


class GradientAlignmentConfig(Section):
    """The mean norm of the gradient of 1, 2, 4, … examples at fixed weights."""

    enabled: Annotated[bool, JobSelection] = True
    """`false` disables this analysis."""

    checkpoints: Checkpoints = ("init", "best")
    """Checkpoints to evaluate: `init`, `best`, `last`, `average`, or epochs of `training.checkpoints`."""

    max_batch_size: Annotated[PositiveInt, Field(examples=[256]), AfterValidator(_power_of_two)] = 256
    """The largest number of examples, a power of two; for smaller datasets the largest power of two that fits."""

    seed: Seed = 0
    """Seed of the order in which examples form batches; the same for all runs."""
