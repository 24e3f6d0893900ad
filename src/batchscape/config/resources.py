"""Section `resources`: the devices of each run, which change the speed of a result, not the result."""

from typing import Annotated

from pydantic import Field

from batchscape.config.base import PositiveInt, Section


class ResourcesConfig(Section):
    """What one run trains on. Changing it makes only the report stale: a batch size is always the global one."""

    devices: Annotated[PositiveInt, Field(examples=[4])] = 1
    """Devices on each node that share every batch of a run: GPUs, or on CPUs processes. The result is that of one
    device, except for rounding and for dropout, which each device draws separately."""

    nodes: Annotated[PositiveInt, Field(examples=[2])] = 1
    """Nodes of a Slurm cluster that a run trains on, each with `devices` devices."""

    seeds_per_job: Annotated[PositiveInt, Field(examples=[3])] = 1
    """Seeds of a setting that one job trains one after the other, in the order of `grid.seeds`: starting Python and
    its libraries takes seconds. Each seed is a run by itself, as in a job of its own. More than 1 is for short
    runs; where devices would wait for jobs, 1 is faster."""

    jobs_per_gpu: Annotated[PositiveInt, Field(examples=[2])] = 1
    """Jobs of this machine that may share a GPU; by default each waits for a free GPU."""
