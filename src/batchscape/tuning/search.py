"""Search for the hyperparameters of a batch size by trainings; the next job resumes it if its job is killed."""

import hashlib
import json
import logging
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from batchscape.config.run import RunSpec, with_hyperparameters
from batchscape.config.scaling import known_hyperparameters
from batchscape.config.tuning import SearchSpec, affordable_trials, search_budget, trial_budget
from batchscape.curvature.loss_surface import LossSurface
from batchscape.data.dataset import storage_device
from batchscape.data.prepared import prepared_digest, read_prepared
from batchscape.data.spec import VALIDATION
from batchscape.io.run_directory import RunDirectory
from batchscape.models.parameters import flatten_tensors
from batchscape.runtime import states
from batchscape.runtime.device import choose_device
from batchscape.tasks.build import build_objective
from batchscape.training.execution import SINGLE_PROCESS, Execution
from batchscape.training.plan import StepPlan
from batchscape.training.recorder import DIVERGED as RUN_DIVERGED
from batchscape.training.recorder import STOPPED_EARLY
from batchscape.training.train import train
from batchscape.tuning.journal import open_journal
from batchscape.tuning.rules import COMPLETED, DIVERGED, PRUNED, Outcome, Trial
from batchscape.tuning.space import to_hyperparameters
from batchscape.tuning.trials import Cost, Report, Search, Studies

# Folder of the runs of the current trial, beside the journal.
TRIAL = "trial"

log = logging.getLogger(__name__)


def search(spec: SearchSpec, data: Path, journal: Path, execution: Execution = SINGLE_PROCESS) -> pd.DataFrame:
    """Search for the hyperparameters of the lowest validation loss.

    The trials are a coarse grid of learning rates, then, one by one: beyond the end of a range if the best setting is
    there; at `tuning.margin` times the best learning rate if that was not tried; else where a Gaussian process expects
    the largest improvement. Then the best settings train for the complete budget with other seeds, and one of these
    finalists is chosen (`batchscape.tuning.rules`).

    A killed search resumes: its trials are not trained again, and the runs of the trial that was interrupted resume
    from their checkpoints in the folder `trial` beside the journal. If the specification, the data or `execution.code`
    differ, the search starts again; the trials of the other search remain in the journal. The trials are a function of
    the specification, the data and the numbers of threads, devices and nodes.

    Args:
        spec: All that decides the trials, and the budget.
        data: A file written by `batchscape.data.prepared.write_prepared`.
        journal: File in which Optuna stores the trials.
        execution: How the runs train, as for `train`. With several processes per run, no trial is pruned.

    Returns:
        One row per trial and seed, in order. Columns: batch_size, trial (from 0), stage (`grid`, `search`, `extension`
        or `finalist`), seed, learning_rate and the other hyperparameters that are searched, validation_loss (the lowest
        one; inf if the run diverged), status (`completed`, `diverged` or `pruned`), best_epoch, examples, trainings
        (examples over those of a complete training), cpu_seconds, is_best (1 for the setting to use, else 0).

    Raises:
        UserError: The data is missing or does not fit, the journal is corrupt, or a run stopped at the deadline.
    """
    journal.parent.mkdir(parents=True, exist_ok=True)
    tuning, num_examples = spec.tuning, len(read_prepared(data).train)
    if execution.num_processes > 1:
        tuning = tuning.model_copy(update={"pruner": "none"})
    trial_plan, complete_plan = (StepPlan(run_spec(spec, is_complete), num_examples) for is_complete in (False, True))
    cost = Cost(
        trials=affordable_trials(tuning, spec.training),
        examples=len(tuning.seeds) * trial_plan.examples(trial_plan.total),
        evaluations=len(trial_plan.evaluations),
    )
    budget, per_training = search_budget(tuning, spec.training), complete_plan.examples(complete_plan.total)
    trainer = _Trainer(spec, data, journal.parent / TRIAL, execution)
    spent: list[int] = []

    def record(trial: Trial) -> None:
        shutil.rmtree(trainer.folder, ignore_errors=True)
        spent.append(trial.examples)
        loss, values = trial.loss(tuning.quantile), to_hyperparameters(trial.point)
        described = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in values.items())
        log.info(
            "trial %d (%s): %s; validation loss %.4g%s; %.3g trainings",
            trial.number + 1, trial.stage, described, loss, " when pruned" if trial.is_pruned else "",
            trial.examples / per_training,
        )  # fmt: skip
        states.record_state(
            states.TRIAL, trial=trial.number + 1, stage=trial.stage, **values, validation_loss=loss,
            trainings=trial.examples / per_training, budget=budget,
        )  # fmt: skip

    studies = Studies(open_journal(journal), *_study_names(spec, data, execution.code), {"search": _description(spec)})
    process = Search(tuning, _known_values(spec), cost, trainer, studies, record)
    if recorded := process.num_recorded:
        log.info("resuming after %d completed trials", recorded)
        states.record_state(states.RESUMED, trials=recorded)
    trials, best = process.run()
    if not spent:
        log.info("the search is already complete")
        states.record_state(states.ALREADY_COMPLETE)
    rows = [row for trial in trials for row in _rows(spec, trial, per_training, trial.number == trials[best].number)]
    return pd.DataFrame(rows)


def run_spec(spec: SearchSpec, is_complete: bool) -> RunSpec:
    """Return the specification of the runs of a search, with any seed and learning rate.

    Args:
        spec: The search.
        is_complete: Whether the runs are those of finalists, which train for the complete budget.
    """
    budget = spec.training.budget if is_complete else trial_budget(spec.tuning, spec.training)
    return RunSpec(
        batch_size=spec.batch_size,
        learning_rate=1.0,
        seed=0,
        model=spec.model,
        task=spec.task,
        training=spec.training.model_copy(update={"budget": budget}),
        optimizer=spec.optimizer,
        schedule=spec.schedule,
    )


class _Trainer:
    """Trains the runs of a search; their files remain in the folder until a trial is complete."""

    def __init__(self, spec: SearchSpec, data: Path, folder: Path, execution: Execution):
        self.specs = {is_complete: run_spec(spec, is_complete).model_dump(mode="json") for is_complete in (False, True)}
        self.data = data
        self.folder = folder
        self.execution = execution
        self.initial_losses: dict[int, float] = {}

    def __call__(
        self, hyperparameters: Mapping[str, float], seed: int, *, is_complete: bool, report: Report | None
    ) -> Outcome:
        run = with_hyperparameters({**self.specs[is_complete], "seed": seed}, hyperparameters)
        if self.execution.num_processes > 1:
            report = None
        directory = RunDirectory(train(run, self.data, self.folder / f"seed{seed}", self.execution, report))
        summary, history = directory.summary(), directory.history(["examples", "train_cpu_seconds"])
        diverged = summary["status"] == RUN_DIVERGED
        best = summary["best_epoch"]
        return Outcome(
            loss=math.inf if diverged else summary["best_validation_loss"],
            initial_loss=self._initial_loss(run),
            status=DIVERGED if diverged else PRUNED if summary["status"] == STOPPED_EARLY else COMPLETED,
            best_epoch=math.nan if best is None else float(best),
            examples=int(history["examples"].iloc[-1]),
            cpu_seconds=float(history["train_cpu_seconds"].sum()),
        )

    def _initial_loss(self, run: RunSpec) -> float:
        """Return the validation loss before training; inf if it is not finite."""
        if run.seed not in self.initial_losses:
            loss = initial_loss(run, self.data)
            self.initial_losses[run.seed] = loss if math.isfinite(loss) else math.inf
        return self.initial_losses[run.seed]


def initial_loss(spec: RunSpec, data: Path) -> float:
    """Return the validation loss of the initial network of a run, with BatchNorm statistics of the validation set."""
    prepared, device = read_prepared(data), choose_device(spec.training.accelerator)
    objective = build_objective(spec.model, spec.task, prepared, spec.seed)
    validation = prepared.validation.to(storage_device(prepared.validation.num_bytes, device))
    surface = LossSurface(objective, validation, device)
    weights = flatten_tensors([parameter.detach() for parameter in objective.module.parameters()]).numpy()
    if surface.has_batch_norm:
        surface.estimate_batch_norm_statistics(weights)
    return surface.value(weights, VALIDATION).loss


def _known_values(spec: SearchSpec) -> dict[str, float]:
    """Return the hyperparameters that runs have without a search."""
    values = known_hyperparameters(spec.optimizer.name, spec.optimizer.arguments)
    warmup = spec.schedule.warmup
    return values if warmup is None or warmup.fraction is None else {**values, "warmup": warmup.fraction}


def _description(spec: SearchSpec) -> dict[str, Any]:
    """Return what decides the trials, without what decides only how many there are, and what follows them."""
    exclude = {"enabled", "budget", "finalists", "trial_budget"}
    return {
        "run": run_spec(spec, is_complete=False).model_dump(mode="json"),
        "tuning": spec.tuning.model_dump(mode="json", exclude=exclude),
    }


def _study_names(spec: SearchSpec, data: Path, code: str) -> tuple[str, str]:
    """Return the names of the studies of the trials and of the finalists."""
    finalists = {
        "run": run_spec(spec, is_complete=True).model_dump(mode="json"),
        "seeds": spec.tuning.finalists.seeds,
        "quantile": spec.tuning.quantile,
        "hyperparameters": list(spec.tuning.hyperparameters.ranges),
    }
    keys = [
        hashlib.sha256(json.dumps([content, prepared_digest(data), code], sort_keys=True).encode()).hexdigest()[:12]
        for content in (_description(spec), finalists)
    ]
    return f"bs{spec.batch_size}-{keys[0]}", f"bs{spec.batch_size}-finalists-{keys[1]}"


def _rows(spec: SearchSpec, trial: Trial, per_training: int, is_best: bool) -> list[dict[str, Any]]:
    values = to_hyperparameters(trial.point)
    return [
        {
            "batch_size": spec.batch_size,
            "trial": trial.number,
            "stage": trial.stage,
            "seed": seed,
            **values,
            "validation_loss": outcome.loss,
            "status": outcome.status,
            "best_epoch": outcome.best_epoch,
            "examples": outcome.examples,
            "trainings": outcome.examples / per_training,
            "cpu_seconds": outcome.cpu_seconds,
            "is_best": int(is_best),
        }
        for seed, outcome in trial.outcomes.items()
    ]
