"""The search for the learning rate of a batch size: real trials on a few digits, killed, resumed and repeated."""

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest

from batchscape.config.budget import Budget
from batchscape.config.model import VggConfig
from batchscape.config.run import RunSpec
from batchscape.config.training import TrainingConfig
from batchscape.config.tuning import SearchSpec, TuningConfig
from batchscape.data.prepared import PreparedData, write_prepared
from batchscape.io.run_directory import RunDirectory
from batchscape.training.execution import Execution
from batchscape.training.train import train
from batchscape.tuning.search import search

pytestmark = pytest.mark.slow

MODEL = VggConfig(channels=(2,), dense=(4,))


def spec_of(**tuning) -> SearchSpec:
    settings = {
        "learning_rate_range": (0.01, 1.0),
        "trials": 5,
        "startup_trials": 3,
        "budget": Budget(epochs=2),
        "seeds": (3, 4),
        **tuning,
    }
    training = TrainingConfig(budget=settings.pop("budget"), accelerator="cpu")
    return SearchSpec(batch_size=32, model=MODEL, training=training, tuning=TuningConfig(**settings))


def same(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    """Return whether the results of two searches are identical, except for their cost."""
    return one.drop(columns="cpu_seconds").equals(other.drop(columns="cpu_seconds"))


@pytest.fixture(scope="module")
def reference(small_data_file: Path, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The trials of an uninterrupted search."""
    return search(
        spec_of(), small_data_file, tmp_path_factory.mktemp("search") / "optuna.journal", Execution(code="code")
    )


def test_grid_is_followed_by_gaussian_process(reference: pd.DataFrame):
    assert reference["sampler"].tolist() == ["grid"] * 3 + ["gp"] * 2
    assert np.allclose(reference["learning_rate"][:3], [0.01, 0.1, 1.0], rtol=1e-12)
    assert reference["learning_rate"].between(0.01, 1.0).all()
    assert reference["trial"].tolist() == [0, 1, 2, 3, 4]


def test_trial_is_the_mean_over_its_seeds(reference: pd.DataFrame, small_data_file: Path, tmp_path: Path):
    losses, epochs = [], []
    for seed in (3, 4):
        training = TrainingConfig(budget=Budget(epochs=2), accelerator="cpu")
        run = RunSpec(
            batch_size=32, learning_rate=reference["learning_rate"][3], seed=seed, model=MODEL, training=training
        )
        summary = RunDirectory(train(run, small_data_file, tmp_path / str(seed))).summary()
        losses.append(summary["best_validation_loss"])
        epochs.append(summary["best_epoch"])
    trial = reference.loc[3]
    assert trial["validation_loss"] == pytest.approx(np.mean(losses), rel=1e-12)
    assert trial["validation_loss_sd"] == pytest.approx(np.std(losses, ddof=1), rel=1e-9)
    assert trial["best_epoch"] == np.mean(epochs)
    assert trial[["n_seeds", "n_diverged"]].tolist() == [2, 0]


def test_best_trial_has_the_lowest_loss(reference: pd.DataFrame):
    assert reference["is_best"].sum() == 1
    assert reference.loc[reference["is_best"] == 1, "validation_loss"].item() == reference["validation_loss"].min()


def test_trials_are_a_function_of_the_sampler_seed(reference: pd.DataFrame, small_data_file: Path, tmp_path: Path):
    assert same(search(spec_of(), small_data_file, tmp_path / "again.journal", Execution(code="code")), reference)
    other = search(spec_of(sampler_seed=1), small_data_file, tmp_path / "other.journal", Execution(code="code"))
    assert other["learning_rate"][:3].equals(reference["learning_rate"][:3])
    assert not other["learning_rate"].equals(reference["learning_rate"])


def test_larger_budget_continues_the_search(reference: pd.DataFrame, small_data_file: Path, tmp_path: Path):
    journal = tmp_path / "optuna.journal"
    first = search(spec_of(trials=4), small_data_file, journal, Execution(code="code"))
    more = search(spec_of(), small_data_file, journal, Execution(code="code"))
    assert same(more, reference)
    assert more["cpu_seconds"][:4].equals(first["cpu_seconds"])  # not trained again
    fewer = search(spec_of(trials=3), small_data_file, journal, Execution(code="code"))
    assert fewer["trial"].tolist() == [0, 1, 2]
    assert fewer["is_best"].sum() == 1


@pytest.mark.parametrize("change", ["code", "data", "epochs"])
def test_another_search_in_the_same_journal_starts_again(
    change: str, small_data: PreparedData, small_data_file: Path, tmp_path: Path
):
    journal, data, code = tmp_path / "optuna.journal", small_data_file, "code"
    before = search(spec_of(trials=3), data, journal, Execution(code=code))
    spec = spec_of(trials=3, budget=Budget(epochs=1)) if change == "epochs" else spec_of(trials=3)
    if change == "code":
        code = "edited"
    if change == "data":
        data = tmp_path / "other.safetensors"
        write_prepared(
            data,
            replace(small_data, train=small_data.train[:100]),
        )
    after = search(spec, data, journal, Execution(code=code))
    assert not after["cpu_seconds"].equals(before["cpu_seconds"])
    # The trials of the first search remain.
    assert same(search(spec_of(trials=3), small_data_file, journal, Execution(code="code")), before)


def test_repeated_rate_is_not_trained_again(small_data_file: Path, tmp_path: Path):
    # In such a narrow range the loss falls up to its end, which the sampler suggests repeatedly.
    spec = spec_of(learning_rate_range=(0.01, 0.011), trials=10, startup_trials=2)
    trials = search(spec, small_data_file, tmp_path / "optuna.journal", Execution(code="code"))
    again = trials["learning_rate"].duplicated()
    assert again.any()
    assert (trials["cpu_seconds"][again] == 0).all()
    assert (trials["cpu_seconds"][~again] > 0).all()
    for _, rows in trials.groupby("learning_rate"):
        assert rows["validation_loss"].nunique() == 1


def test_diverged_trials_are_recorded_but_never_best(small_data_file: Path, tmp_path: Path):
    spec = spec_of(learning_rate_range=(0.01, 1e30), trials=4, startup_trials=2)
    trials = search(spec, small_data_file, tmp_path / "optuna.journal", Execution(code="code"))
    assert trials["validation_loss"][1] == np.inf
    # At such a rate a seed may keep a finite loss if all its units die at once; that depends on rounding.
    assert trials["n_diverged"][1] >= 1
    assert trials["n_seeds"][1] == 2 - trials["n_diverged"][1]
    assert trials.loc[trials["is_best"] == 1, "validation_loss"].item() < 1


def test_lowest_rate_is_best_if_all_diverge(small_data_file: Path, tmp_path: Path):
    spec = spec_of(learning_rate_range=(1e29, 1e30), trials=2, startup_trials=2)
    trials = search(spec, small_data_file, tmp_path / "optuna.journal", Execution(code="code"))
    assert np.isinf(trials["validation_loss"]).all()
    assert trials["is_best"].tolist() == [1, 0]


KILLED = """
import os, signal, sys
from itertools import count
from pathlib import Path
from batchscape.training.execution import Execution
from batchscape.tuning import search as tuning
from batchscape.config.tuning import SearchSpec

train, number = tuning.train, count(1)

def killed(*arguments):
    if next(number) == int(sys.argv[4]):
        os.kill(os.getpid(), signal.SIGKILL)
    return train(*arguments)

tuning.train = killed
tuning.search(SearchSpec.model_validate_json(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), Execution(code="code"))
"""


@pytest.mark.parametrize("at_run", [3, 6, 7, 8])
def test_killed_search_resumes_to_identical_trials(
    at_run: int, reference: pd.DataFrame, small_data_file: Path, tmp_path: Path
):
    """The search is killed in the first run of a trial, before any checkpoint, or in its second run."""
    journal = tmp_path / "optuna.journal"
    command = [
        sys.executable,
        "-c",
        KILLED,
        spec_of().model_dump_json(),
        str(small_data_file),
        str(journal),
        str(at_run),
    ]
    assert subprocess.run(command, stderr=subprocess.DEVNULL).returncode == -signal.SIGKILL
    runs = 2 * (reference["cpu_seconds"] > 0).cumsum()  # up to the end of each trial; a repeated rate has none
    assert count_completed_trials(journal) == (runs < at_run).sum()
    again = search(spec_of(), small_data_file, journal, Execution(code="code"))
    assert same(again, reference)
    assert count_completed_trials(journal) == 5


def count_completed_trials(journal: Path) -> int:
    """Count the completed trials of a journal: Optuna writes the values of a trial with its final state."""
    lines = journal.read_text().splitlines() if journal.exists() else []
    return sum('"state":1,' in line for line in lines)


def test_truncated_journal_is_resumed(reference: pd.DataFrame, small_data_file: Path, tmp_path: Path):
    journal = tmp_path / "optuna.journal"
    search(spec_of(trials=3), small_data_file, journal, Execution(code="code"))
    content = journal.read_bytes()
    journal.write_bytes(content[:-20])
    assert same(search(spec_of(), small_data_file, journal, Execution(code="code")), reference)


def test_journal_opens_as_an_optuna_study(small_data_file: Path, tmp_path: Path):
    journal = tmp_path / "optuna.journal"
    trials = search(spec_of(trials=3), small_data_file, journal, Execution(code="code"))
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))
    (name,) = optuna.get_all_study_names(storage)
    study = optuna.load_study(study_name=name, storage=storage)
    assert name.startswith("bs32-")
    assert study.best_value == trials["validation_loss"].min()
    assert json.loads(json.dumps(study.user_attrs["search"]))["batch_size"] == 32
