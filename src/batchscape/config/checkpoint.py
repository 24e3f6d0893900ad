"""Checkpoints of a run that an analysis evaluates."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from batchscape.config.base import AsTuple, Distinct, PositiveInt

NAMED = ("init", "best", "last", "average")


def _is_checkpoint(value: Any) -> Any:
    if value in NAMED or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
        return value
    raise ValueError(f"must be init, best, last, average or an epoch of training.checkpoints, got {value!r}")


# `best`: the weights with the lowest validation loss; `average`: the average of the weights at the end of the run.
Checkpoint = Annotated[Literal["init", "best", "last", "average"] | PositiveInt, BeforeValidator(_is_checkpoint)]
Checkpoints = Annotated[tuple[Checkpoint, ...], Field(min_length=1, examples=[["best"]]), AsTuple, Distinct]
