"""Key `tracking`: the programs that show the curves of the runs, also while they train."""

from typing import Annotated, Literal

from batchscape.config.base import AsTuple, Distinct, JobSelection

TrackerName = Literal["tensorboard", "mlflow", "wandb", "csv"]
Trackers = Annotated[tuple[TrackerName, ...], AsTuple, Distinct, JobSelection]

# The package that a tracker needs, which is an optional dependency (`batchscape[mlflow]`) of the tracker's name.
PACKAGES: dict[TrackerName, str] = {"tensorboard": "tensorboard", "mlflow": "mlflow", "wandb": "wandb"}
