"""Evaluate the line through the weights of two runs."""

from pathlib import Path

import torch

from batchscape.analysis.collect import collect_pair
from batchscape.analysis.interpolation import Config, analyse
from batchscape.data.prepared import read_prepared
from batchscape.frames import write_frame
from batchscape.gpus import job_gpus
from batchscape.job import job_log

if __name__ == "__main__":
    resources = snakemake.resources
    with job_log(snakemake.log[0]), job_gpus(resources.gpu, resources.jobs_per_gpu):
        torch.set_num_threads(snakemake.threads)
        config = Config.model_validate_json(snakemake.params.spec)
        data = read_prepared(Path(snakemake.input.data))
        directories = [Path(file).parent for file in (snakemake.input.run, snakemake.input.other)]
        rows = collect_pair(*directories, lambda first, second: analyse(first, second, data, config))
        write_frame(Path(snakemake.output[0]), rows)
