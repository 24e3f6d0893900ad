"""Train one branch of a run."""

from batchscape.runtime.job import job_log

import shutil
from pathlib import Path

from batchscape.analysis.branching import Config, train_branch
from batchscape.analysis.collect import collect
from batchscape.config.budget import parse_point
from batchscape.io.frames import write_frame
from batchscape.runtime.gpus import allocate_gpus
from batchscape.training.execution import Execution

if __name__ == "__main__":
    resources = snakemake.resources
    with (
        job_log(snakemake.log[0]),
        allocate_gpus(resources.gpu, resources.jobs_per_gpu, managed_by_slurm=bool(resources.gres)),
    ):
        config = Config.model_validate_json(snakemake.params.spec)
        point, factor = parse_point(snakemake.wildcards.point), int(snakemake.wildcards.factor)
        execution = Execution.of_job(snakemake.threads, resources, snakemake.params.code)
        data, state, output = Path(snakemake.input.data), Path(snakemake.input.state), Path(snakemake.output[0])
        directory = output.with_suffix("")
        rows = collect(
            [Path(snakemake.input.run).parent],
            lambda run: train_branch(run, data, state, directory, config, point, factor, execution),
        )
        write_frame(output, rows)
        # What is left of the branch is its row: a killed one has resumed from its checkpoint.
        shutil.rmtree(directory, ignore_errors=True)
