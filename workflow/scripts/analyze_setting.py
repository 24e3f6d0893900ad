"""Analyze the loss around the weights of a setting's runs; the output folder is named like the analysis module."""

from batchscape.runtime.job import job_log

from importlib import import_module
from pathlib import Path

import torch

from batchscape.analysis.cache import cached
from batchscape.analysis.collect import collect
from batchscape.analysis.surfaces import draw_examples, parse_spec
from batchscape.data.prepared import read_prepared
from batchscape.io.frames import write_frame
from batchscape.runtime.gpus import allocate_gpus

if __name__ == "__main__":
    resources = snakemake.resources
    with job_log(snakemake.log[0]), allocate_gpus(resources.gpu, resources.jobs_per_gpu):
        torch.set_num_threads(snakemake.threads)
        output = Path(snakemake.output[0])
        # Not the name of the rule, which an outer workflow may change.
        analysis = import_module(f"batchscape.analysis.{output.parent.name}")
        config, examples = parse_spec(snakemake.params.spec, analysis.Config)
        data = draw_examples(read_prepared(Path(snakemake.input.data)), examples)
        key = [snakemake.params.spec, snakemake.params.code]
        directories = [Path(file).parent for file in snakemake.input.runs]
        rows = collect(directories, lambda run: cached(output, key, [run], lambda: analysis.analyze(run, data, config)))
        write_frame(output, rows)
