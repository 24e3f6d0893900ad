"""Section `analysis`: which examples the analyses of the loss surface look at."""

from typing import Annotated

from pydantic import Field

from batchscape.config.base import PositiveInt, Section, Seed


class AnalysisConfig(Section):
    """The examples that `sharpness`, `interpolation`, `landscape`, `trajectory`, `gradient_alignment`, `curvature` and
    `spectral_density` look at."""

    examples: Annotated[PositiveInt, Field(examples=[2048])] = 2048
    """Look at this many training examples, drawn at random once for all runs, and at as many validation examples; at
    all of a side that has fewer. The standard error of a mean loss over 2048 is 2.2 % of the standard deviation of the
    loss between examples, and all runs share it, since they share the examples."""

    seed: Seed = 0
    """Seed of the draw; the same for all runs and analyses."""
