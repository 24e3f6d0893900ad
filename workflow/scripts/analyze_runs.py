"""Run one analysis on every run, or on those in a table; the output file is named like the analysis module."""

from batchscape.runtime.job import job_log

from importlib import import_module
from pathlib import Path

from batchscape.analysis.collect import collect
from batchscape.io.frames import read_frame, write_frame

if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        output = Path(snakemake.output[0])
        # Not the name of the rule, which an outer workflow may change.
        analysis = import_module(f"batchscape.analysis.{output.stem}")
        if table := snakemake.input.get("table"):
            folder = Path(table).parents[1] / "runs"
            directories = [folder / run for run in read_frame(Path(table))["run"]]
        else:
            directories = [Path(run).parent for run in snakemake.input.runs]
        write_frame(output, collect(directories, analysis.analyze))
