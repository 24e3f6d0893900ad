"""Concatenate the rows of all jobs of an analysis."""

from batchscape.runtime.job import job_log

from pathlib import Path

import pandas as pd

from batchscape.io.frames import read_frame, write_frame

if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        parts = [read_frame(Path(part)) for part in snakemake.input]
        write_frame(Path(snakemake.output[0]), pd.concat(parts, ignore_index=True))
