"""`batchscape check`: validate a study file and its data; list its trainings and estimate their time."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from batchscape.config.base import shortest_decimal
from batchscape.config.loading import printable
from batchscape.config.tuning import affordable_trials
from batchscape.data.inspect import Inspection, inspect_source
from batchscape.data.spec import describe_large_batch
from batchscape.errors import UserError
from batchscape.study.study import Study


def check(file: Path) -> list[str]:
    """Return lines for the terminal that describe a valid study. Raises UserError if the study or its data is not."""
    study = Study.from_file(file)
    study.require_files(printable(file))
    study.require_packages(printable(file))
    try:
        inspection = inspect_source(study.data, study.task.name)
        if inspection.counts and (too_large := describe_large_batch(max(study.grid.batch_sizes), *inspection.counts)):
            raise UserError(too_large)
        cost = _cost(study, inspection)
    except UserError as error:
        raise UserError(f"{printable(file)}: {error}") from None
    return [
        f"{printable(file)}: is a valid study",
        *_runs(study),
        *_warnings(study),
        *inspection.lines,
        study.plan.describe_trainings(),
        *study.plan.describe_branching(inspection.counts[0] if inspection.counts else None),
        study.job_resources.describe_gpus(),
        *cost,
        *_results(study),
    ]


def _runs(study: Study) -> Iterator[str]:
    grid = study.grid
    in_grid = len(grid.batch_sizes) * len(grid.learning_rates) * len(grid.seeds)
    yield (
        f"{len(study.runs)} runs: {in_grid} of the grid, batch sizes ({_join(grid.batch_sizes)}) × "
        f"learning rates ({_join(grid.learning_rates)}) × seeds ({_join(grid.seeds)}), "
        f"and {len(study.runs) - in_grid} that arms add"
    )
    if study.confirmation_runs:
        yield (
            f"{len(study.confirmation_runs)} runs of the confirmation: the settings with the lowest validation loss, "
            f"with the seeds {_join(study.confirmation_seeds)}"
        )
    for arm, settings in study.plan.settings_by_arm:
        yield f"arm {arm}: {', '.join(settings) or 'has no batch size of the grid'}"


def _warnings(study: Study) -> Iterator[str]:
    comparison, tuning = study.comparison, study.tuning
    if comparison.high_learning_rate < comparison.fixed_learning_rate:
        yield (
            f"comparison.high_learning_rate: {comparison.high_learning_rate:g} is below fixed_learning_rate, "
            f"{comparison.fixed_learning_rate:g}, so that the arm `high` shows a lower rate; increase it"
        )
    has_trial = affordable_trials(tuning, study.training) >= tuning.startup_trials + 1
    if tuning.enabled and tuning.margin > 1 and not has_trial:
        yield (
            "tuning.budget: pays no trial after the grid of the search; settings above which nothing was tried are "
            "then no finalists, even if their loss is lower; increase it"
        )


def _cost(study: Study, inspection: Inspection) -> list[str]:
    # These import torch and pandas, which takes seconds.
    from batchscape.cli.status import DONE, read_runs

    if all(run.state == DONE for run in read_runs(study)):
        return ["time: all runs are complete"]
    from batchscape.cli.cost import describe_cost

    return describe_cost(study, inspection)


def _results(study: Study) -> Iterator[str]:
    yield "the data is prepared and the network is tested when the study runs, before any training"
    exists = (
        ", which exists: results that this file changes are computed again" if Path(study.paths.folder).exists() else ""
    )
    yield f"results go to {study.paths.folder}/{exists}"


def _join(values: Iterable[float]) -> str:
    return ", ".join(map(shortest_decimal, values))
