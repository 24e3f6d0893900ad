"""Choose the settings that are trained again with other seeds."""

from batchscape.runtime.job import job_log

import json
from pathlib import Path

from batchscape.config.run import Tuned
from batchscape.config.stages import MeasuredStages
from batchscape.io.files import read_json, write_json
from batchscape.io.frames import name_files_in_errors, read_frame
from batchscape.report.finalists import choose_finalists

if __name__ == "__main__":
    with job_log(snakemake.log[0]), name_files_in_errors(snakemake.input):
        runs, spec = read_frame(Path(snakemake.input.runs)), json.loads(snakemake.params.spec)
        hint = "delete it to resume the search from its journal"
        found = [Path(file) for file in snakemake.input.tuned]
        tuned = {int(file.parent.name.removeprefix("bs")): read_json(file, Tuned, hint) for file in found}
        hint = "delete it, and the same command writes it again"
        files = {Path(file).parent.name: Path(file) for file in snakemake.input.stages}
        measured = {setting: read_json(file, MeasuredStages, hint) for setting, file in files.items()}
        finalists = choose_finalists(runs, spec, tuned, measured)
        write_json(Path(snakemake.output[0]), finalists.model_dump(mode="json"))
