"""Checkpoints of a run that an analysis evaluates."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from batchscape.config.base import AsTuple, Distinct, PositiveInt

NAMED = ("init", "best", "last")


def _is_checkpoint(value: Any) -> Any:
    if value in NAMED or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
        return value
    raise ValueError(f"must be init, best, last or an epoch of training.checkpoints, got {value!r}")


# `best`: the weights with the lowest validation loss.
Checkpoint = Annotated[Literal["init", "best", "last"] | PositiveInt, BeforeValidator(_is_checkpoint)]
Checkpoints = Annotated[tuple[Checkpoint, ...], Field(min_length=1, examples=[["best"]]), AsTuple, Distinct]
