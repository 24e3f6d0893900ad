"""Train a finalist with seeds that took no part in its choice."""

from batchscape.runtime.job import run_in_turn

from pathlib import Path

from batchscape.config.run import run_seed
from batchscape.io.finalists import read_finalists
from batchscape.runtime.gpus import allocate_gpus
from batchscape.training.execution import Execution
from batchscape.training.tracking import Tracking
from batchscape.training.train import train

if __name__ == "__main__":
    resources = snakemake.resources
    directories = [Path(file).parent for file in snakemake.output.run]

    def train_run(index: int) -> None:
        name = directories[index].name
        rank = int(name.partition("-")[0].removeprefix("rank"))
        finalist = read_finalists(Path(snakemake.input.finalists)).finalists[rank - 1]
        execution = Execution.of_job(snakemake.threads, resources, snakemake.params.code)
        spec, directory = finalist.run_spec(run_seed(name)), directories[index]
        tracking = Tracking.of_run(resources.tracking, directory.parents[1], f"{finalist.setting}-seed{spec.seed}")
        train(spec, Path(snakemake.input.data), directory, execution, tracking=tracking)

    run_in_turn(
        snakemake.log,
        lambda: allocate_gpus(resources.gpu, resources.jobs_per_gpu, managed_by_slurm=bool(resources.gres)),
        train_run,
    )
