"""Prepare the data that all runs of the study train on."""

from batchscape.runtime.job import job_log

from pathlib import Path

from pydantic import TypeAdapter

from batchscape.config.data import DataConfig
from batchscape.data.prepare import prepare
from batchscape.data.prepared import write_prepared
from batchscape.io.frames import write_frame

if __name__ == "__main__":
    with job_log(snakemake.log[0]) as echo:
        config = TypeAdapter(DataConfig).validate_json(snakemake.params.spec)
        prepared = prepare(config, snakemake.threads)
        write_frame(Path(snakemake.output.manifest), prepared.manifest)
        write_prepared(Path(snakemake.output.data), prepared.data)
        for line in prepared.summary:
            echo(f"data: {line}")
