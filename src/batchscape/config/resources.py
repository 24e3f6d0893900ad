"""Section `resources`: on how many devices each run trains. It decides how fast a result comes, not what it is."""

from typing import Annotated

from pydantic import Field

from batchscape.config.base import PositiveInt, Section


class ResourcesConfig(Section):
    """What one run trains on. Another number of devices makes nothing stale: a batch size is always the global one."""

    devices: Annotated[PositiveInt, Field(examples=[4])] = 1
    """Devices on each node that share every batch of a run: GPUs, or on CPUs processes. The result is that of one
    device but for rounding, and but for dropout, of which each device draws its own."""

    nodes: Annotated[PositiveInt, Field(examples=[2])] = 1
    """Nodes of a Slurm cluster that a run trains on, each with so many devices."""

    jobs_per_gpu: Annotated[PositiveInt, Field(examples=[2])] = 1
    """Jobs of this machine that may share a GPU; by default each has its own, and waits for one."""
