"""Section `averaging`: the average of the weights over the steps of a run."""

from typing import Annotated

from pydantic import Field

from batchscape.config.base import PositiveInt, Section


class AveragingConfig(Section):
    """An exponential moving average of the weights, which is evaluated beside them and saved as the checkpoint
    `average`. It does not change how runs train."""

    half_life: Annotated[PositiveInt | None, Field(examples=[20000])] = None
    """Training examples after which the weight of a step in the average has halved; `null`: no average. In examples, so
    that it means the same for all batch sizes."""
