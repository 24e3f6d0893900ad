"""Collect the final status of the runs of the confirmation."""

from batchscape.runtime.job import job_log

from pathlib import Path

from batchscape.analysis.confirmation import collect_confirmation
from batchscape.io.finalists import read_finalists
from batchscape.io.frames import write_frame

if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        finalists = read_finalists(Path(snakemake.input.finalists))
        directories = [Path(run).parent for run in snakemake.input.runs]
        write_frame(Path(snakemake.output[0]), collect_confirmation(directories, finalists))
