"""Run one analysis on every run; the output file is named like the analysis module."""

from batchscape.runtime.job import job_log

from importlib import import_module
from pathlib import Path

from batchscape.analysis.collect import collect
from batchscape.io.frames import write_frame

if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        output = Path(snakemake.output[0])
        # Not the name of the rule, which an outer workflow may change.
        analysis = import_module(f"batchscape.analysis.{output.stem}")
        directories = [Path(run).parent for run in snakemake.input.runs]
        write_frame(output, collect(directories, analysis.analyze))
