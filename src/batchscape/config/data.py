"""Section `data`: which images, and how they are split."""

from typing import Annotated, Literal

from pydantic import Field

from batchscape.config.base import FromText, Section, Seed


class DataConfig(Section):
    """Where the images come from and which of them validate."""

    source: Literal["digits"] = "digits"
    """`digits`: the 1,797 handwritten digits of 8×8 pixels that scikit-learn ships; the task is odd or even."""

    validation_fraction: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False, examples=[0.2]), FromText] = 0.2
    """Share of the images held out for validation."""

    split_seed: Seed = 0
    """Seed of the split alone: all runs of a study share one split."""
