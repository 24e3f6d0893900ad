"""Section `curvature`: the curvature of the training loss at the saved weights of a run."""

from typing import Annotated

from pydantic import Field

from batchscape.config.base import JobSelection, PositiveInt, Section, Seed
from batchscape.config.landscape import Settings


class CurvatureConfig(Section):
    """The largest eigenvalue of the Hessian and the batch sharpness during training, at `init`, the epochs of
    `training.checkpoints`, `best` and `last`, beside the edge of stability (Cohen et al. 2021)."""

    enabled: Annotated[bool, JobSelection] = False
    """`true` enables this analysis. `training.checkpoints` says when; without it there are only `init`, `best` and
    `last`."""

    settings: Settings = None
    """Settings, as in `landscape`, each with all its seeds."""

    batches: Annotated[PositiveInt, Field(examples=[32])] = 8
    """Batches over which the batch sharpness is averaged."""

    seed: Seed = 0
    """Seed of the batches and of the start of the Lanczos iteration; the same for all runs and checkpoints."""
