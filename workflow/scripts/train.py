"""Train one run, at the learning rate of its specification or at the one that the search found."""

import json
from pathlib import Path

from batchscape.config.run import RunSpec
from batchscape.files import read_json
from batchscape.gpus import job_gpus
from batchscape.job import job_log
from batchscape.training.train import train

if __name__ == "__main__":
    resources = snakemake.resources
    with job_log(snakemake.log[0]), job_gpus(resources.gpu, resources.jobs_per_gpu):
        found = {key: value for file in snakemake.input.tuned for key, value in read_json(Path(file)).items()}
        spec = RunSpec.model_validate_json(json.dumps({**json.loads(snakemake.params.spec), **found}))
        train(
            spec,
            Path(snakemake.input.data),
            Path(snakemake.output.run).parent,
            max(1, snakemake.threads // resources.devices),
            snakemake.params.code,
            resources.devices,
            resources.nodes,
        )
