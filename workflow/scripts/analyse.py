"""Answer one question for every run; the rule has the name of the module that answers it."""

from batchscape.job import job_log

from importlib import import_module
from pathlib import Path

from batchscape.analysis.collect import collect
from batchscape.frames import write_frame

if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        analysis = import_module(f"batchscape.analysis.{snakemake.rule}")
        directories = [Path(run).parent for run in snakemake.input.runs]
        write_frame(Path(snakemake.output[0]), collect(directories, analysis.analyse))
