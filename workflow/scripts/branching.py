"""Train the branches of a run from a point on; each row is cached."""

from batchscape.runtime.job import job_log

import json
from pathlib import Path

from batchscape.analysis.branching import Config, cached_state, train_branches
from batchscape.analysis.collect import collect
from batchscape.config.budget import parse_point
from batchscape.io.frames import write_frame
from batchscape.io.run_directory import RunDirectory
from batchscape.runtime.gpus import allocate_gpus
from batchscape.training.execution import Execution

if __name__ == "__main__":
    resources = snakemake.resources
    with (
        job_log(snakemake.log[0]),
        allocate_gpus(resources.gpu, resources.jobs_per_gpu, managed_by_slurm=bool(resources.gres)),
    ):
        config = Config.model_validate_json(snakemake.params.spec)
        point, factors = parse_point(snakemake.wildcards.point), json.loads(snakemake.params.factors)
        execution = Execution.of_job(snakemake.threads, resources, snakemake.params.code)
        directory = Path(snakemake.input.run).parent
        data, output = Path(snakemake.input.data), Path(snakemake.output[0])
        # The factors are not in the key: a new one trains no other branch again.
        key = [snakemake.params.spec, snakemake.params.code]
        state = cached_state(RunDirectory(directory), data, output, point, execution)
        rows = collect(
            [directory],
            lambda run: train_branches(run, data, state, output, config, point, factors, key, execution),
        )
        write_frame(output, rows)
