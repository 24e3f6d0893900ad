"""Search for the learning rate of a batch size: one Optuna study, which the next job resumes if its job is killed."""

import hashlib
import json
import logging
import math
import shutil
import warnings
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import optuna
import pandas as pd
from optuna.distributions import FloatDistribution
from optuna.storages import JournalStorage
from optuna.trial import FrozenTrial, TrialState

from batchscape.config.run import RunSpec
from batchscape.config.tuning import SearchSpec
from batchscape.data.prepared import prepared_digest
from batchscape.io.run_directory import RunDirectory
from batchscape.runtime import states
from batchscape.training.execution import SINGLE_PROCESS, Execution
from batchscape.training.train import train
from batchscape.tuning.journal import open_journal

RATE = "learning_rate"
# Folder of the runs of the current trial, beside the journal.
TRIAL = "trial"

log = logging.getLogger(__name__)


def search(spec: SearchSpec, data: Path, journal: Path, execution: Execution = SINGLE_PROCESS) -> pd.DataFrame:
    """Search for the learning rate of the lowest validation loss: a coarse grid, then a Gaussian process.

    A killed search resumes: its completed trials are not trained again, and the runs of the trial that was interrupted
    resume from their checkpoints in the folder `trial` beside the journal. If the specification, the data or
    `execution.code` differ, the search starts again; the trials of the other search remain in the journal. The trials
    are a function of the specification, the data and the numbers of threads, devices and nodes.

    Args:
        spec: All that decides the trials, and how many to run.
        data: A file written by `batchscape.data.prepared.write_prepared`.
        journal: File in which Optuna stores the trials.
        execution: How the runs train, as for `train`.

    Returns:
        One row per trial, in order. Columns: batch_size, trial (from 0), sampler (`grid` or `gp`), learning_rate,
        validation_loss (mean of the best validation loss over `tuning.seeds`; inf if a run diverged),
        validation_loss_sd, best_epoch (mean), n_seeds, n_diverged, cpu_seconds (total of the training; 0 for a rate
        that an earlier trial had), is_best (1 for the trial with the tuned rate, else 0: the lowest loss; on ties, and
        if all diverged, the lowest rate).

    Raises:
        UserError: The data is missing or does not fit, the journal is corrupt, or a run stopped at the deadline.
    """
    _silence_warnings()
    journal.parent.mkdir(parents=True, exist_ok=True)
    storage = open_journal(journal)
    study = _open_study(spec, data, storage, execution.code)
    runs_folder, num_trials = journal.parent / TRIAL, spec.tuning.trials
    if len(completed := _completed_trials(study)) >= num_trials:
        log.info("the search is already complete")
        states.record_state(states.ALREADY_COMPLETE)
    elif completed:
        log.info("resuming after %d completed trials", len(completed))
        states.record_state(states.RESUMED, trials=len(completed))
    while len(completed := _completed_trials(study)) < num_trials:
        trial = _resume_or_ask(study, storage, spec)
        rate = trial.suggest_float(RATE, *spec.tuning.learning_rate_range, log=True)
        # The sampler may suggest a rate again, above all at an end of the range; the same seeds would give the same.
        earlier = next((other for other in completed if math.isclose(other.params[RATE], rate)), None)
        if earlier:
            loss, attributes = earlier.value, {**earlier.user_attrs, "cpu_seconds": 0.0}
        else:
            loss, attributes = _train_seeds(spec, rate, data, runs_folder, execution)
        for name, value in attributes.items():
            trial.set_user_attr(name, value)
        study.tell(trial, loss)
        shutil.rmtree(runs_folder, ignore_errors=True)
        log.info("trial %d of %d: learning rate %.4g, validation loss %.4g", len(completed) + 1, num_trials, rate, loss)
        progress = {"trial": len(completed) + 1, "trials": num_trials}
        states.record_state(states.TRIAL, **progress, learning_rate=rate, validation_loss=loss)
    return _mark_best(pd.DataFrame([_row(spec, trial) for trial in _completed_trials(study)[:num_trials]]))


def _mark_best(trials: pd.DataFrame) -> pd.DataFrame:
    """Add the column is_best: the lowest validation loss; on ties, also between diverged trials, the lowest rate."""
    best = trials.sort_values(RATE, kind="stable")["validation_loss"].idxmin()
    return trials.assign(is_best=(trials.index == best).astype(int))


def _open_study(spec: SearchSpec, data: Path, storage: JournalStorage, code: str) -> optuna.Study:
    """Load or create the study of this search, with the grid enqueued."""
    description = spec.model_dump(mode="json")
    del description["tuning"]["trials"]  # more trials continue the same study
    search_key = json.dumps([description, prepared_digest(data), code], sort_keys=True)
    study = optuna.create_study(
        storage=storage,
        study_name=f"bs{spec.batch_size}-{hashlib.sha256(search_key.encode()).hexdigest()[:12]}",
        direction="minimize",
        load_if_exists=True,
    )
    study.set_metric_names(["best validation loss"])
    study.set_user_attr("search", description)
    for rate in np.geomspace(*spec.tuning.learning_rate_range, spec.tuning.startup_trials):
        study.enqueue_trial({RATE: float(rate)}, skip_if_exists=True)
    return study


def _silence_warnings() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    warnings.filterwarnings("ignore", message="Clip non-finite values")  # of trials that diverged


def _completed_trials(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def _resume_or_ask(study: optuna.Study, storage: JournalStorage, spec: SearchSpec) -> optuna.Trial:
    """Return the trial that a killed job left unfinished, or else a new one."""
    unfinished = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    number = unfinished[0].number if unfinished else len(_completed_trials(study))
    # A new sampler for each trial: its suggestion depends on the trials before it, not on when the job started.
    seed = np.random.SeedSequence([spec.tuning.sampler_seed, number]).generate_state(1)
    study.sampler = optuna.samplers.GPSampler(seed=int(seed[0]), n_startup_trials=spec.tuning.startup_trials)
    if unfinished:
        # A study resumes no trial itself, and a trial's id is public only through the storage.
        study_id = storage.get_study_id_from_name(study.study_name)
        return optuna.Trial(study, storage.get_trial_id_from_study_id_trial_number(study_id, number))
    return study.ask({RATE: FloatDistribution(*spec.tuning.learning_rate_range, log=True)})


def _train_seeds(
    spec: SearchSpec, rate: float, data: Path, folder: Path, execution: Execution
) -> tuple[float, dict[str, Any]]:
    """Train every seed at a learning rate; return the loss to minimize, and the trial's other attributes."""
    summaries, cpu_seconds = [], 0.0
    for seed in spec.tuning.seeds:
        run = RunSpec(
            batch_size=spec.batch_size,
            learning_rate=rate,
            seed=seed,
            model=spec.model,
            task=spec.task,
            training=spec.training,
            optimizer=spec.optimizer,
            schedule=spec.schedule,
        )
        directory = RunDirectory(train(run, data, folder / f"seed{seed}", execution))
        summaries.append(directory.summary())
        cpu_seconds += float(directory.history(["train_cpu_seconds"]).to_numpy().sum())
    finite = [summary for summary in summaries if summary["status"] != "diverged"]
    losses = [summary["best_validation_loss"] for summary in finite]
    return mean(losses) if len(losses) == len(summaries) else math.inf, {
        "validation_loss_sd": stdev(losses) if len(losses) > 1 else None,
        "best_epoch": mean(summary["best_epoch"] for summary in finite) if finite else None,
        "n_seeds": len(finite),
        "n_diverged": len(summaries) - len(finite),
        "cpu_seconds": cpu_seconds,
    }


def _row(spec: SearchSpec, trial: FrozenTrial) -> dict[str, Any]:
    return {
        "batch_size": spec.batch_size,
        "trial": trial.number,
        "sampler": "grid" if trial.number < spec.tuning.startup_trials else "gp",
        RATE: trial.params[RATE],
        "validation_loss": trial.value,
        **{name: math.nan if value is None else value for name, value in trial.user_attrs.items()},
    }
