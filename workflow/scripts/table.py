"""Make one table from its analyses and other tables."""

from batchscape.runtime.job import job_log

import json
from importlib import import_module
from pathlib import Path

from batchscape.io.frames import name_files_in_errors, read_frame, write_frame

if __name__ == "__main__":
    with job_log(snakemake.log[0]), name_files_in_errors(snakemake.input):
        table = import_module(f"batchscape.report.tables.{snakemake.wildcards.table}")
        sources = [read_frame(Path(source)) for source in snakemake.input.sources]
        optional = {Path(source).stem: read_frame(Path(source)) for source in snakemake.input.optional}
        frame = table.tabulate(*sources, **optional, **json.loads(snakemake.params.spec))
        write_frame(Path(snakemake.output[0]), frame)
