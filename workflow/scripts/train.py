"""Train one run, at the learning rate of its spec or at the tuned one."""

from batchscape.runtime.job import job_log

import json
from pathlib import Path

from batchscape.config.budget import parse_point
from batchscape.config.run import RunSpec, Tuned
from batchscape.io.files import read_json
from batchscape.runtime.gpus import allocate_gpus
from batchscape.training.execution import Execution
from batchscape.training.train import train

if __name__ == "__main__":
    resources = snakemake.resources
    with (
        job_log(snakemake.log[0]),
        allocate_gpus(resources.gpu, resources.jobs_per_gpu, managed_by_slurm=bool(resources.gres)),
    ):
        spec_values = json.loads(snakemake.params.spec)
        for file in snakemake.input.tuned:
            spec_values |= read_json(Path(file), Tuned, "delete it to resume the search from its journal")
        spec = RunSpec.model_validate_json(json.dumps(spec_values))
        execution = Execution.of_job(snakemake.threads, resources, snakemake.params.code)
        states = [parse_point(name) for name in resources.states.split()]
        train(spec, Path(snakemake.input.data), Path(snakemake.output.run).parent, execution, states=states)
