"""How a run is executed: all settings that do not decide its weights."""

from dataclasses import dataclass
from typing import Protocol, Self

from batchscape.runtime.slurm import job_end_time


class JobResources(Protocol):
    """The resources of a Snakemake job that trains."""

    devices: int
    nodes: int
    jobs_per_gpu: int


@dataclass(frozen=True)
class Execution:
    """How and where a run trains, and until when; `RunSpec` holds all that decides its weights.

    Threads, devices and nodes change the weights only through the rounding of sums; in networks with dropout, also
    because each process draws its own random numbers.
    """

    threads: int = 1
    """Threads of each process."""

    devices: int = 1
    """Processes on each node that share a batch, each with its own GPU where it trains on GPUs."""

    nodes: int = 1
    """Nodes of the Slurm job."""

    deadline: float | None = None
    """When the process will be killed, as by a time limit, in seconds since the Unix epoch; None if unknown."""

    code: str = ""
    """Fingerprint of the code that trains: only runs of the same code are resumed or reused. If it is empty, no
    complete run is reused."""

    jobs_per_gpu: int = 1
    """Jobs that share a GPU: each may use that fraction of its memory."""

    @property
    def num_processes(self) -> int:
        """Processes that share a batch, on all nodes."""
        return self.devices * self.nodes

    @classmethod
    def of_job(cls, threads: int, resources: JobResources, code: str) -> Self:
        """Return the execution of this Snakemake job, whose `threads` its devices divide between them."""
        return cls(
            threads=max(1, threads // resources.devices),
            devices=resources.devices,
            nodes=resources.nodes,
            deadline=job_end_time(),
            code=code,
            jobs_per_gpu=resources.jobs_per_gpu,
        )


SINGLE_PROCESS = Execution()
