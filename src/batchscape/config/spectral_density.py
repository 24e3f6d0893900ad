"""Section `spectral_density`: the spectrum of the Hessian of the training loss."""

from typing import Annotated

from pydantic import Field

from batchscape.config.base import JobSelection, PositiveInt, Section, Seed
from batchscape.config.checkpoint import Checkpoints
from batchscape.config.landscape import Settings


class SpectralDensityConfig(Section):
    """The spectral density of the complete Hessian of the training loss, by stochastic Lanczos quadrature (Ghorbani et
    al. 2019), and its trace by layer."""

    enabled: Annotated[bool, JobSelection] = False
    """`true` enables this analysis. It takes `steps` · `probes` products with the Hessian at each checkpoint."""

    settings: Settings = None
    """Settings, as in `landscape`, each with all its seeds."""

    checkpoints: Checkpoints = ("best",)
    """Checkpoints to evaluate: `init`, `best`, `last`, `average`, or epochs of `training.checkpoints`."""

    steps: Annotated[int, Field(ge=2, examples=[80])] = 80
    """Steps of the Lanczos iteration from each probe. Its basis takes 8 · `steps` bytes for each parameter."""

    probes: Annotated[PositiveInt, Field(examples=[5])] = 5
    """Random vectors over which density and traces are averaged."""

    seed: Seed = 0
    """Seed of the probes; the same for all runs and checkpoints."""
