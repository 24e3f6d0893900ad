"""Write the complete state of a run at a point of its training."""

from batchscape.runtime.job import job_log

from pathlib import Path

from batchscape.analysis.branching import save_state
from batchscape.config.budget import parse_point
from batchscape.io.run_directory import RunDirectory
from batchscape.runtime.gpus import allocate_gpus
from batchscape.training.execution import Execution

if __name__ == "__main__":
    resources = snakemake.resources
    with (
        job_log(snakemake.log[0]),
        allocate_gpus(resources.gpu, resources.jobs_per_gpu, managed_by_slurm=bool(resources.gres)),
    ):
        run, data = RunDirectory(Path(snakemake.input.run).parent), Path(snakemake.input.data)
        execution = Execution.of_job(snakemake.threads, resources, snakemake.params.code)
        save_state(run, data, Path(snakemake.output[0]), parse_point(snakemake.wildcards.point), execution)
