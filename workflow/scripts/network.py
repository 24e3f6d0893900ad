"""See that the network fits the data, and say what it is."""

from batchscape.job import job_log

import json
from pathlib import Path

from pydantic import TypeAdapter

from batchscape.config.model import ModelConfig
from batchscape.data.prepared import read_prepared
from batchscape.files import write_json
from batchscape.network_check import check_network

if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        spec = json.loads(snakemake.params.spec)
        model = TypeAdapter(ModelConfig).validate_python(spec["model"])
        data = read_prepared(Path(snakemake.input.data))
        network = check_network(model, spec["loss"], snakemake.resources.largest_batch, data)
        write_json(Path(snakemake.output[0]), network)
