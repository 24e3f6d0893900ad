"""Draw one figure from its tables and analyses."""

from batchscape.runtime.job import job_log

import json
from importlib import import_module
from pathlib import Path

from batchscape.config.figures import FiguresConfig
from batchscape.io.frames import name_files_in_errors, read_frame
from batchscape.report.figures.files import write_figure

if __name__ == "__main__":
    with job_log(snakemake.log[0]), name_files_in_errors(snakemake.input):
        figure = import_module(f"batchscape.report.figures.{snakemake.wildcards.figure}")
        sources = [read_frame(Path(source)) for source in snakemake.input]
        plot = figure.draw(*sources, **json.loads(snakemake.params.spec))
        config = FiguresConfig.model_validate_json(snakemake.params.figures)
        write_figure(plot, [Path(file) for file in snakemake.output], config)
