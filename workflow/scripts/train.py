"""Train runs of a setting, with the hyperparameters of its spec or with the tuned ones, and with its stages or measured
ones."""

from batchscape.runtime.job import run_in_turn

import json
from pathlib import Path

from batchscape.config.budget import parse_point
from batchscape.config.run import RunSpec, Tuned, run_seed, with_hyperparameters
from batchscape.config.stages import MeasuredStages
from batchscape.io.files import read_json
from batchscape.runtime.gpus import allocate_gpus
from batchscape.training.execution import Execution
from batchscape.training.tracking import Tracking
from batchscape.training.train import train

if __name__ == "__main__":
    resources = snakemake.resources
    directories = [Path(file).parent for file in snakemake.output.run]
    states = [[parse_point(name) for name in names.split()] for names in resources.states.split(";")]

    def train_run(index: int) -> None:
        directory = directories[index]
        values = json.loads(snakemake.params.spec) | {"seed": run_seed(directory.name)}
        if files := snakemake.input.stages:
            values |= read_json(Path(files[0]), MeasuredStages, "delete it, and the same command writes it again")
        if files := snakemake.input.tuned:
            tuned = read_json(Path(files[0]), Tuned, "delete it to resume the search from its journal")
            spec = with_hyperparameters(values, tuned)
        else:
            spec = RunSpec.model_validate_json(json.dumps(values))
        execution = Execution.of_job(snakemake.threads, resources, snakemake.params.code)
        tracking = Tracking.of_run(resources.tracking, directory.parents[1], directory.name)
        train(spec, Path(snakemake.input.data), directory, execution, states=states[index], tracking=tracking)

    run_in_turn(
        snakemake.log,
        lambda: allocate_gpus(resources.gpu, resources.jobs_per_gpu, managed_by_slurm=bool(resources.gres)),
        train_run,
    )
