"""Section `data`: which images, and how they are split."""

from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from batchscape.config.base import FromText, Section, Seed


class DataSize(NamedTuple):
    """What is known of a source before it is loaded: the number of images, and their shorter side in pixels."""

    images: int
    side: int


KNOWN_SIZES = {"digits": DataSize(images=1797, side=8)}


def validation_count(count: int, validation_fraction: float) -> int:
    """Return how many of `count` images validate."""
    return round(count * validation_fraction)


class DataConfig(Section):
    """Where the images come from and which of them validate."""

    source: Literal["digits"] = "digits"
    """`digits`: the 1,797 handwritten digits of 8×8 pixels that scikit-learn ships; the task is odd or even."""

    validation_fraction: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False, examples=[0.2]), FromText] = 0.2
    """Share of the images held out for validation."""

    split_seed: Seed = 0
    """Seed of the split alone: all runs of a study share one split."""
