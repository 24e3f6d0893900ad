"""Train a finalist with a seed that took no part in its choice."""

from batchscape.runtime.job import job_log

from pathlib import Path

from batchscape.io.finalists import read_finalists
from batchscape.runtime.gpus import allocate_gpus
from batchscape.training.execution import Execution
from batchscape.training.tracking import Tracking
from batchscape.training.train import train

if __name__ == "__main__":
    resources, wildcards = snakemake.resources, snakemake.wildcards
    with (
        job_log(snakemake.log[0]),
        allocate_gpus(resources.gpu, resources.jobs_per_gpu, managed_by_slurm=bool(resources.gres)),
    ):
        finalist = read_finalists(Path(snakemake.input.finalists)).finalists[int(wildcards.rank) - 1]
        spec = finalist.run_spec(int(wildcards.seed))
        execution = Execution.of_job(snakemake.threads, resources, snakemake.params.code)
        directory = Path(snakemake.output.run).parent
        tracking = Tracking.of_run(resources.tracking, directory.parents[1], f"{finalist.setting}-seed{wildcards.seed}")
        train(spec, Path(snakemake.input.data), directory, execution, tracking=tracking)
