"""Choose the settings that are trained again with other seeds."""

from batchscape.runtime.job import job_log

import json
from pathlib import Path

from batchscape.io.files import write_json
from batchscape.io.frames import name_files_in_errors, read_frame
from batchscape.report.finalists import choose_finalists

if __name__ == "__main__":
    with job_log(snakemake.log[0]), name_files_in_errors(snakemake.input):
        finalists = choose_finalists(read_frame(Path(snakemake.input.runs)), json.loads(snakemake.params.spec))
        write_json(Path(snakemake.output[0]), finalists.model_dump(mode="json"))
