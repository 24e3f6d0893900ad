"""Train one run."""

from pathlib import Path

from batchscape.config.run import RunSpec
from batchscape.job import job_log
from batchscape.training.train import train

if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        spec = RunSpec.model_validate_json(snakemake.params.spec)
        train(spec, Path(snakemake.input.data), Path(snakemake.output.run).parent, snakemake.threads)
