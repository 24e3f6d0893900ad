"""Section `trajectory`: the training trajectory on the plane of its two leading principal components."""

from typing import Annotated, Literal

from pydantic import Field

from batchscape.config.base import FromText, JobSelection, Section
from batchscape.config.landscape import GridPoints, Seeds, Settings


class TrajectoryConfig(Section):
    """The weights of `training.checkpoints` on the plane of their two leading principal components, and the training
    loss on that plane (Li et al. 2018, section 7.2)."""

    enabled: Annotated[bool, JobSelection] = False
    """`true` enables this analysis, which needs `training.checkpoints`."""

    settings: Settings = None
    """Settings, as in `landscape`."""

    seeds: Seeds = None
    """Seeds of the runs; by default the first of the grid."""

    points: GridPoints = (31, 31)
    """Number of points of the plane along the first and the second component."""

    margin: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False, examples=[0.2]), FromText] = 0.2
    """How far the plane reaches beyond the trajectory, as a share of its extent."""

    batch_norm: Literal["re-estimate", "fixed"] = "re-estimate"
    """BatchNorm statistics, as in `landscape`."""
