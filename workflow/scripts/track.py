"""Add to the trackers the complete runs that they lack."""

from batchscape.runtime.job import job_log

from pathlib import Path

from batchscape.io.finalists import read_finalists
from batchscape.io.frames import write_frame
from batchscape.training.tracking import track_complete_runs

if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        runs = {directory.name: directory for directory in (Path(file).parent for file in snakemake.input.runs)}
        if files := snakemake.input.finalists:
            finalists = read_finalists(Path(files[0])).finalists
            for directory in (Path(file).parent for file in snakemake.input.confirmation):
                rank, _, seed = directory.name.removeprefix("rank").partition("-seed")
                runs[f"{finalists[int(rank) - 1].setting}-seed{seed}"] = directory
        output = Path(snakemake.output[0])
        write_frame(output, track_complete_runs(runs, snakemake.params.trackers, output.parents[1]))
