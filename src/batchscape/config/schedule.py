"""Section `schedule`: how the learning rate changes during a run."""

from typing import Annotated, Literal

from pydantic import Field

from batchscape.config.base import FromText, Section
from batchscape.config.budget import Warmup


class ScheduleConfig(Section):
    """The learning rate of each step, as a factor of that of the run. It is a function of the step and of the budget of
    the run alone."""

    warmup: Annotated[Warmup | None, Field(examples=[{"fraction": 0.1}])] = None
    """Length of a linear warm-up from 0, in `steps`, `epochs`, `examples` or as a `fraction` of the budget; `null`:
    none. An arm may have its own."""

    decay: Literal["constant", "linear", "cosine", "sqrt"] = "constant"
    """Shape of the decay at the end: none; linear; half a period of a cosine (Loshchilov & Hutter 2017); or 1 − √x of the
    fraction x of the decay that is done (Hägele et al. 2024)."""

    decay_fraction: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False, examples=[0.2]), FromText] = 1.0
    """Fraction of the budget, at its end, over which the rate decays; it does not begin before the warm-up ends."""

    final_factor: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, examples=[0.1]), FromText] = 0.0
    """Factor of the learning rate that the decay ends at, after the last step."""
