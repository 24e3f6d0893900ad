"""Evaluate the loss on one part of a plane."""

from batchscape.runtime.job import job_log

from pathlib import Path

import torch

from batchscape.analysis.collect import collect
from batchscape.analysis.landscape import Config, analyze
from batchscape.analysis.surfaces import draw_examples, parse_spec
from batchscape.data.prepared import read_prepared
from batchscape.io.frames import write_frame
from batchscape.runtime.gpus import allocate_gpus

if __name__ == "__main__":
    resources = snakemake.resources
    with job_log(snakemake.log[0]), allocate_gpus(resources.gpu, resources.jobs_per_gpu):
        torch.set_num_threads(snakemake.threads)
        config, examples = parse_spec(snakemake.params.spec, Config)
        data = draw_examples(read_prepared(Path(snakemake.input.data)), examples)
        directions_and_part = [int(snakemake.wildcards[key]) for key in ("directions", "part", "parts")]
        directory = Path(snakemake.input.run).parent
        rows = collect([directory], lambda run: analyze(run, data, config, *directions_and_part))
        write_frame(Path(snakemake.output[0]), rows)
