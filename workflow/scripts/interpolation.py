"""Evaluate the loss on the lines between the weights of two settings, seed by seed."""

from batchscape.runtime.job import job_log

from pathlib import Path

import pandas as pd
import torch

from batchscape.analysis.cache import cached
from batchscape.analysis.collect import collect_pair
from batchscape.analysis.interpolation import Config, analyze
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
        output = Path(snakemake.output[0])
        key = [snakemake.params.spec, snakemake.params.code]
        pairs = zip(snakemake.input.runs, snakemake.input.others, strict=True)
        rows = [
            collect_pair(
                Path(one).parent,
                Path(other).parent,
                lambda *runs: cached(output, key, runs, lambda: analyze(*runs, data, config)),
            )
            for one, other in pairs
        ]
        write_frame(output, pd.concat(rows, ignore_index=True))
