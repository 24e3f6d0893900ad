"""Choose the stages of a batch size warm-up from the branches of its setting."""

from batchscape.runtime.job import job_log

import json
from pathlib import Path

import pandas as pd

from batchscape.config.stages import MeasuredStages
from batchscape.io.files import write_json
from batchscape.io.frames import name_files_in_errors, read_frame
from batchscape.report.batch_warmup import choose_stages
from batchscape.report.tables.branching import tabulate

if __name__ == "__main__":
    with job_log(snakemake.log[0]), name_files_in_errors(snakemake.input):
        branches = pd.concat([read_frame(Path(file)) for file in snakemake.input], ignore_index=True)
        spec = json.loads(snakemake.params.spec)
        table = tabulate(branches, branching_tolerance=spec["tolerance"])
        measured = MeasuredStages(stages=choose_stages(table, spec["rule"]))
        write_json(Path(snakemake.output[0]), measured.model_dump(mode="json"))
