"""Search for the hyperparameters of one batch size."""

from batchscape.runtime.job import job_log

from pathlib import Path

from batchscape.config.run import Tuned
from batchscape.config.tuning import SearchSpec
from batchscape.io.files import write_json
from batchscape.io.frames import write_frame
from batchscape.runtime.gpus import allocate_gpus
from batchscape.training.execution import Execution
from batchscape.tuning.search import search

if __name__ == "__main__":
    resources = snakemake.resources
    with (
        job_log(snakemake.log[0]),
        allocate_gpus(resources.gpu, resources.jobs_per_gpu, managed_by_slurm=bool(resources.gres)),
    ):
        spec = SearchSpec.model_validate_json(snakemake.params.spec)
        tuned = Path(snakemake.output.tuned)
        # Not a declared output: Snakemake deletes these before it starts a job.
        journal = tuned.with_name("optuna.journal")
        execution = Execution.of_job(snakemake.threads, resources, snakemake.params.code)
        trials = search(spec, Path(snakemake.input.data), journal, execution)
        write_frame(Path(snakemake.output.trials), trials)
        best = trials[trials["is_best"] == 1].iloc[0]
        write_json(tuned, {name: float(best[name]) for name in Tuned.model_fields if name in best})
