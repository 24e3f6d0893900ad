"""Section `device_timing`: the speedup of an epoch on several devices."""

from typing import Annotated

from pydantic import Field

from batchscape.config.base import AsTuple, Distinct, JobSelection, PositiveInt, Section
from batchscape.config.run import RunSpec


class DeviceTimingConfig(Section):
    """The time of an epoch on several numbers of devices, at the fixed learning rate, while no other job of the study
    runs. On CPUs, processes of one thread take the place of devices."""

    enabled: Annotated[bool, JobSelection] = True
    """`false` disables this analysis."""

    device_counts: Annotated[tuple[PositiveInt, ...], Field(min_length=1, examples=[[1, 2, 4]]), AsTuple, Distinct] = (
        1,
        2,
        4,
    )
    """Numbers of devices. Numbers above those of the machine or above the batch size have no time in the table; on CPUs
    a machine counts as two devices per core."""

    epochs: Annotated[PositiveInt, Field(examples=[5])] = 5
    """Number of timed epochs, after one warm-up epoch."""


class TimingSpec(Section):
    """What the timing job trains: one run per batch size, whose first epoch is a warm-up, on each number of devices."""

    runs: tuple[RunSpec, ...]
    device_counts: tuple[PositiveInt, ...]
