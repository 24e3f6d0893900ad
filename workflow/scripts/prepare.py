"""Prepare the data that all runs of the study train on."""

from batchscape.runtime.job import job_log

import json
from pathlib import Path

from pydantic import TypeAdapter

from batchscape.config.data.sources import DataConfig
from batchscape.data.prepare import prepare
from batchscape.io.frames import write_frame

if __name__ == "__main__":
    with job_log(snakemake.log[0]) as echo:
        spec = json.loads(snakemake.params.spec)
        config = TypeAdapter(DataConfig).validate_python(spec["data"])
        prepared = prepare(config, snakemake.threads, spec["task"], Path(snakemake.output.data))
        write_frame(Path(snakemake.output.manifest), prepared.manifest)
        for line in prepared.summary:
            echo(f"data: {line}")
