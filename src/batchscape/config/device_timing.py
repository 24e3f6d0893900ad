"""Section `device_timing`: how much faster an epoch is on several devices."""

from typing import Annotated

from pydantic import Field

from batchscape.config.base import AsTuple, Distinct, JobSelection, PositiveInt, Section
from batchscape.config.run import RunSpec


class DeviceTimingConfig(Section):
    """The time of an epoch on several numbers of devices, at the fixed learning rate, while no other job of the study
    is at work. On CPUs, processes of one thread stand for the devices."""

    enabled: Annotated[bool, JobSelection] = True
    """`false` leaves the analysis out."""

    device_counts: Annotated[tuple[PositiveInt, ...], Field(min_length=1, examples=[[1, 2, 4]]), AsTuple, Distinct] = (
        1,
        2,
        4,
    )
    """Numbers of devices. Those that the machine does not have, or that are more than the batch, stand in the table
    without a time; of processes it has two a core."""

    epochs: Annotated[PositiveInt, Field(examples=[5])] = 5
    """How many epochs are timed, after one that warms up."""


class TimingSpec(Section):
    """What the job times: runs of each batch size, whose first epoch warms up, on each number of devices."""

    runs: tuple[RunSpec, ...]
    device_counts: tuple[PositiveInt, ...]
