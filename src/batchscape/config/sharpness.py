"""Section `sharpness`: the sharpness of the loss around the weights of a run."""

from typing import Annotated

from pydantic import Field

from batchscape.config.base import AsTuple, Distinct, FromText, JobSelection, PositiveInt, Section, Seed
from batchscape.config.checkpoint import Checkpoints

Radius = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False), FromText]


class SharpnessConfig(Section):
    """Keskar's sharpness, adaptive sharpness, and the Hessian's top eigenvalue and trace, of the training loss."""

    enabled: Annotated[bool, JobSelection] = True
    """`false` disables this analysis."""

    checkpoints: Checkpoints = ("best",)
    """Checkpoints to evaluate: `init`, `best`, `last`, `average`, or epochs of `training.checkpoints`."""

    epsilons: Annotated[tuple[Radius, ...], Field(min_length=1, examples=[[0.001]]), AsTuple, Distinct] = (
        0.001,
        0.0005,
    )
    """Half-widths ε of the box of Keskar's sharpness, relative to each weight plus one."""

    subspace_dimension: Annotated[PositiveInt, Field(examples=[100])] = 100
    """Dimension of the random subspace in which Keskar's sharpness is measured, in addition to the full space;
    limited to the number of parameters."""

    adaptive_radii: Annotated[tuple[Radius, ...], Field(min_length=1, examples=[[0.01]]), AsTuple, Distinct] = (0.01,)
    """Half-widths ρ of the box of adaptive sharpness, relative to each weight."""

    iterations: Annotated[PositiveInt, Field(examples=[10])] = 10
    """Iterations of L-BFGS-B from each start."""

    random_starts: Annotated[int, Field(ge=0, examples=[1])] = 1
    """Random starts in the box, besides its center. The center alone is enough at weights where training has not
    converged."""

    trace_matvecs: Annotated[int, Field(ge=3, examples=[30])] = 30
    """Hessian-vector products for the estimate of the trace (Hutch++): 30 give it to about 1 % on the default study's
    networks, 60 to half of that."""

    seed: Seed = 0
    """Seed of the subspace, the starts and the trace estimate; the same for all runs."""
