"""Write the report of the study from its figures and tables."""

from batchscape.runtime.job import job_log

import json
from pathlib import Path

from batchscape.io.files import write_text
from batchscape.io.frames import name_files_in_errors, read_frame
from batchscape.io.run_directory import RunDirectory
from batchscape.report.measures import Measures
from batchscape.report.page import render
from batchscape.report.provenance import collect_provenance

if __name__ == "__main__":
    with (
        job_log(snakemake.log[0]),
        name_files_in_errors([snakemake.input.manifest, *snakemake.input.tables, *snakemake.input.analyses]),
    ):
        spec = json.loads(snakemake.params.spec)
        tables = {Path(file).stem: read_frame(Path(file)) for file in snakemake.input.tables}
        analyses = {Path(file).stem: read_frame(Path(file)) for file in snakemake.input.analyses}
        figures = {Path(file).stem: Path(file).read_bytes() for file in snakemake.input.figures}
        summaries = [RunDirectory(Path(file).parent).summary() for file in snakemake.input.runs]
        measures = Measures.from_settings(spec["measures"])
        manifest = read_frame(Path(snakemake.input.manifest), text=True)
        origin = collect_provenance(summaries, tables["runs"], manifest, measures)
        page = render(spec, figures, tables, origin, analyses=analyses)
        output = Path(snakemake.output[0])
        write_text(output, page)
        # The partial report that `batchscape report` wrote earlier is outdated now.
        output.with_name("report-partial.html").unlink(missing_ok=True)
