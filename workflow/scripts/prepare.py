"""Prepare the images that all runs of the study train on."""

from pathlib import Path

from batchscape.config.data import DataConfig
from batchscape.data.prepare import prepare
from batchscape.data.prepared import write_prepared
from batchscape.job import job_log

if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        config = DataConfig.model_validate_json(snakemake.params.spec)
        write_prepared(Path(snakemake.output[0]), prepare(config))
