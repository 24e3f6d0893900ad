"""Section `gradient_alignment`: how much of the gradients of single examples survives in their mean."""

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
    """`false` leaves this analysis out."""

    checkpoints: Checkpoints = ("init", "best")
    """Weights to look at: `init`, `best`, `last`, or epochs of `training.checkpoints`."""

    max_batch_size: Annotated[PositiveInt, Field(examples=[256]), AfterValidator(_power_of_two)] = 256
    """The largest number of examples, a power of two; of fewer images than that, the largest power of two below."""

    max_examples: Annotated[PositiveInt | None, Field(examples=[4096])] = None
    """At most so many training images, drawn at random; all if left out."""

    seed: Seed = 0
    """Seed of the drawing and of the batches; the same for all runs."""
