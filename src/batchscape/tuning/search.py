"""The search for the learning rate of a batch size: one Optuna study, which a killed job leaves to be gone on with."""

import hashlib
import json
import logging
import math
import os
import shutil
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import optuna
import pandas as pd
from optuna.distributions import FloatDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import TrialState

from batchscape.config.run import RunSpec
from batchscape.config.tuning import SearchSpec
from batchscape.data.prepared import prepared_digest
from batchscape.errors import UserError
from batchscape.io.run_directory import RunDirectory
from batchscape.training.train import train

RATE = "learning_rate"
# The folder of the trial on its way.
TRIAL = "trial"

log = logging.getLogger(__name__)


def search(
    spec: SearchSpec,
    data: Path,
    journal: Path,
    code: str,
    threads: int = 1,
    devices: int = 1,
    nodes: int = 1,
    ends: float | None = None,
    jobs_per_gpu: int = 1,
) -> pd.DataFrame:
    """Try learning rates on prepared data, and return one row a trial, in order.

    `journal` is the file that keeps the trials: those that an earlier call of the same search has finished are not
    trained again, and one that it was killed in goes on, from what it keeps in the folder `trial` beside the journal
    until it is finished. `code` names the version of the code; another one, other data or another search begin with no
    trials, and keep those of before in the same file. `threads`, `devices`, `nodes`, `ends` and
    `jobs_per_gpu` are those of `train`.

    Columns: batch_size, trial (from 0), sampler (`grid` or `gp`), learning_rate, validation_loss (mean over
    `tuning.seeds` of the least validation loss, nats; inf if a run diverged), validation_loss_sd, best_epoch (mean),
    n_seeds, n_diverged, cpu_seconds (of training, in all; 0 for a rate that came before), is_best (1 for the trial with
    the tuned rate: the least loss, of equal ones the lowest rate, also if all diverged; else 0). The trials are a
    function of all arguments but `journal`.

    Raises UserError when the data is missing or does not fit, or when it stops before its end.
    """
    tuning, how = spec.tuning, (threads, code, devices, nodes, ends, jobs_per_gpu)
    study = _open(spec, data, journal, code)
    if len(done := _completed_trials(study)) >= tuning.trials:
        log.info("the search is already complete")
    elif done:
        log.info("going on after the %d trials that an earlier job finished", len(done))
    while len(done := _completed_trials(study)) < tuning.trials:
        trial = _next(study, spec)
        rate = trial.suggest_float(RATE, *tuning.learning_rate_range, log=True)
        # The process may ask for a rate again, at an end of the range above all; the same seeds would give the same.
        known = next((earlier for earlier in done if math.isclose(earlier.params[RATE], rate)), None)
        if known:
            loss, details = known.value, {**known.user_attrs, "cpu_seconds": 0.0}
        else:
            loss, details = _train(
                spec, rate, lambda run, folder: train(run, data, folder, *how), journal.parent / TRIAL
            )
        for name, value in details.items():
            trial.set_user_attr(name, value)
        study.tell(trial, loss)
        shutil.rmtree(journal.parent / TRIAL, ignore_errors=True)
        log.info("trial %d of %d: learning rate %.4g, validation loss %.4g", len(done) + 1, tuning.trials, rate, loss)
    return _with_best(pd.DataFrame([_row(spec, trial) for trial in _completed_trials(study)[: tuning.trials]]))


def _with_best(trials: pd.DataFrame) -> pd.DataFrame:
    """Mark the trial of the least validation loss; of equal ones the lowest rate's, also where all diverged."""
    best = trials.sort_values(RATE, kind="stable")["validation_loss"].idxmin()
    return trials.assign(is_best=(trials.index == best).astype(int))


def _open(spec: SearchSpec, data: Path, journal: Path, code: str) -> optuna.Study:
    """Return the study of this very search, the grid enqueued."""
    _silence_warnings()
    what = spec.model_dump(mode="json")
    del what["tuning"]["trials"]  # a larger budget goes on with the same study
    data_hash = prepared_digest(data)
    identity = json.dumps([what, data_hash, code], sort_keys=True)
    journal.parent.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=open_journal(journal),
        study_name=f"bs{spec.batch_size}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}",
        direction="minimize",
        load_if_exists=True,
    )
    study.set_metric_names(["least validation loss"])
    study.set_user_attr("search", what)
    for rate in np.geomspace(*spec.tuning.learning_rate_range, spec.tuning.startup_trials):
        study.enqueue_trial({RATE: float(rate)}, skip_if_exists=True)
    return study


def open_journal(journal: Path) -> JournalStorage:
    """Return the trials of a journal. Raises UserError when it is damaged.

    Only one job at a time may use it, which the lock of the job sees to: what a killed one left locked is unlocked.
    """
    _truncate_partial_line(journal)
    # By a file, not by a symbolic link as Optuna does unless told otherwise: some file systems have none.
    lock = JournalFileOpenLock(str(journal.resolve()))
    with suppress(RuntimeError):  # it was not locked
        lock.release()
    try:
        if journal.exists():  # Optuna says nothing of a last line that is none, and would write behind it
            for line in journal.read_text(encoding="utf-8").splitlines():
                json.loads(line)
        return JournalStorage(JournalFileBackend(str(journal.resolve()), lock))
    except Exception as error:  # whatever comes of replaying lines that are no trials
        raise UserError(
            f"{journal}: is no whole journal of a search ({type(error).__name__}: {' '.join(str(error).split())}); "
            "delete it so that the search begins anew"
        )


def _silence_warnings() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    warnings.filterwarnings("ignore", message="Clip non-finite values")  # of trials that diverged


def _truncate_partial_line(journal: Path) -> None:
    """Cut off a last line that is not whole, as a full disk leaves it; Optuna would read nothing behind it."""
    content = journal.read_bytes() if journal.exists() else b""
    if content and not content.endswith(b"\n"):
        os.truncate(journal, content.rfind(b"\n") + 1)  # which needs no room on the disk


def _completed_trials(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def _next(study: optuna.Study, spec: SearchSpec) -> optuna.Trial:
    """Return the trial in which an earlier job was killed, or else a new one."""
    left = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    number = left[0].number if left else len(_completed_trials(study))
    # A sampler of its own for each trial: what it suggests depends on the trials before, not on when the job began.
    seed = np.random.SeedSequence([spec.tuning.sampler_seed, number]).generate_state(1)
    study.sampler = optuna.samplers.GPSampler(
        seed=int(seed[0]),
        n_startup_trials=spec.tuning.startup_trials,
    )
    if left:
        return optuna.Trial(study, left[0]._trial_id)
    return study.ask({RATE: FloatDistribution(*spec.tuning.learning_rate_range, log=True)})


def _train(
    spec: SearchSpec, rate: float, train: Callable[[RunSpec, Path], Path], folder: Path
) -> tuple[float, dict[str, Any]]:
    """Train every seed at a learning rate; return the loss to minimise, and what else the trial records."""
    results = []
    for seed in spec.tuning.seeds:
        run = RunSpec(
            batch_size=spec.batch_size, learning_rate=rate, seed=seed, model=spec.model, training=spec.training
        )
        directory = RunDirectory(train(run, folder / f"seed{seed}"))
        cpu_seconds = directory.history(["train_cpu_seconds"]).to_numpy().sum()
        results.append((directory.summary(), float(cpu_seconds)))
    whole = [summary for summary, _ in results if summary["status"] != "diverged"]
    losses = [summary["best_validation_loss"] for summary in whole]
    return mean(losses) if len(losses) == len(results) else math.inf, {
        "validation_loss_sd": stdev(losses) if len(losses) > 1 else None,
        "best_epoch": mean(summary["best_epoch"] for summary in whole) if whole else None,
        "n_seeds": len(whole),
        "n_diverged": len(results) - len(whole),
        "cpu_seconds": sum(seconds for _, seconds in results),
    }


def _row(spec: SearchSpec, trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    return {
        "batch_size": spec.batch_size,
        "trial": trial.number,
        "sampler": "grid" if trial.number < spec.tuning.startup_trials else "gp",
        RATE: trial.params[RATE],
        "validation_loss": trial.value,
        **{name: math.nan if value is None else value for name, value in trial.user_attrs.items()},
    }
