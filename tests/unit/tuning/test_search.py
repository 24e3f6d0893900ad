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
from batchscape.config.run import RunSpec, Tuned, with_hyperparameters
from batchscape.config.training import TrainingConfig
from batchscape.config.tuning import SearchSpec, TuningConfig
from batchscape.data.prepared import PreparedData, write_prepared
from batchscape.io.run_directory import RunDirectory
from batchscape.training import recorder
from batchscape.training.execution import Execution
from batchscape.training.train import train
from batchscape.tuning.search import initial_loss, run_spec, search
from batchscape.tuning.trials import Search

pytestmark = pytest.mark.slow

MODEL = VggConfig(channels=(2,), dense=(4,))


def spec_of(**tuning) -> SearchSpec:
    """Return a search whose trials train for 4 of the 5 epochs of a run; 7 trials besides the finalist by default."""
    settings = {
        "hyperparameters": {"learning_rate": (0.01, 1.0)},
        "budget": 1 + 7 * 2 * 4 / 5,
        "startup_trials": 3,
        "seeds": (3, 4),
        "finalists": {"settings": 1, "seeds": [7]},
        **tuning,
    }
    settings.setdefault("trial_budget", Budget(epochs=4))
    training = TrainingConfig(budget=Budget(epochs=5), accelerator="cpu")
    return SearchSpec(batch_size=32, model=MODEL, training=training, tuning=TuningConfig(**settings))


SHORT = {"budget": 3 * 2 * 2 / 5, "trial_budget": Budget(epochs=2), "finalists": {"settings": 0}}
"""Only the grid, of 2 epochs."""


def same(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    """Return whether the results of two searches are identical, except for their time."""
    return one.drop(columns="cpu_seconds").equals(other.drop(columns="cpu_seconds"))


@pytest.fixture(scope="module")
def reference(small_data_file: Path, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The runs of an uninterrupted search."""
    return search(
        spec_of(), small_data_file, tmp_path_factory.mktemp("search") / "optuna.journal", Execution(code="code")
    )


def test_grid_is_followed_by_other_trials_and_the_finalist(reference: pd.DataFrame):
    stages = reference.drop_duplicates("trial")["stage"].tolist()
    assert stages[:3] == ["grid"] * 3
    assert stages[-1] == "finalist"
    assert {"search", "extension"} >= set(stages[3:-1]) != set()
    assert np.allclose(reference["learning_rate"][:6:2], [0.01, 0.1, 1.0], rtol=1e-12)
    assert reference.loc[reference["stage"] == "finalist", "seed"].tolist() == [7]
    assert reference["status"].eq("pruned").any()


def test_rows_are_those_of_the_runs(reference: pd.DataFrame, small_data_file: Path, tmp_path: Path):
    for index, epochs in ((4, 4), (len(reference) - 1, 5)):
        row = reference.loc[index]
        training = TrainingConfig(budget=Budget(epochs=epochs), accelerator="cpu")
        run = RunSpec(
            batch_size=32, learning_rate=row["learning_rate"], seed=int(row["seed"]), model=MODEL, training=training
        )
        directory = RunDirectory(train(run, small_data_file, tmp_path / str(index)))
        summary, examples = directory.summary(), directory.history(["examples"])["examples"].iloc[-1]
        assert row["validation_loss"] == summary["best_validation_loss"]
        assert row["best_epoch"] == summary["best_epoch"]
        assert row["examples"] == examples
        assert row["trainings"] == pytest.approx(examples / (5 * summary["training_examples"]))
        assert row["status"] == "completed"


def test_initial_loss_is_that_of_a_run_that_hardly_learns(small_data_file: Path, tmp_path: Path):
    # Of two layers of convolutions: their parameters are not contiguous.
    values = run_spec(spec_of(), is_complete=False).model_dump(mode="json")
    values |= {"seed": 5, "model": VggConfig(channels=(2, 4), dense=(4,)).model_dump(mode="json")}
    slow = with_hyperparameters(values, {"learning_rate": 1e-9})
    trained = RunDirectory(train(slow, small_data_file, tmp_path / "run"))
    loss = trained.summary()["best_validation_loss"]
    assert initial_loss(slow, small_data_file) == pytest.approx(loss, rel=1e-5)
    assert loss == pytest.approx(np.log(2), rel=0.2)


def test_pruned_run_costs_what_it_trained(reference: pd.DataFrame):
    pruned = reference[reference["status"] == "pruned"]
    assert (pruned["examples"] < reference["examples"][0]).all()
    # The seeds after it are not trained.
    assert (
        reference.loc[reference["trial"].isin(pruned["trial"]), "seed"].groupby(reference["trial"]).size() <= 2
    ).all()


def test_other_hyperparameters_train_and_are_columns(small_data_file: Path, tmp_path: Path):
    ranges = {"learning_rate": (0.01, 0.1), "momentum": (0.5, 0.9), "warmup": (0.1, 0.5)}
    spec = spec_of(
        hyperparameters=ranges, budget=4 * 2 / 5, startup_trials=2, seeds=(3,), finalists={"settings": 0},
        trial_budget=Budget(epochs=2),
    )  # fmt: skip
    runs = search(spec, small_data_file, tmp_path / "optuna.journal", Execution(code="code"))
    assert runs["momentum"][0] == pytest.approx(1 - (0.5 * 0.1) ** 0.5, rel=1e-5)
    assert runs["warmup"][0] == pytest.approx(0.05**0.5)
    values = runs.loc[0, ["learning_rate", "momentum", "warmup"]].to_dict()
    run = with_hyperparameters({**run_spec(spec, is_complete=False).model_dump(mode="json"), "seed": 3}, values)
    assert run.optimizer.arguments == {"momentum": values["momentum"]}
    assert run.schedule.warmup.fraction == values["warmup"]
    summary = RunDirectory(train(run, small_data_file, tmp_path / "run")).summary()
    assert runs["validation_loss"][0] == summary["best_validation_loss"]


def test_beta2_changes_the_second_of_the_betas():
    spec = {**RunSpec(batch_size=8, learning_rate=1.0, seed=0).model_dump(mode="json")}
    for arguments, betas in (({}, [0.9, 0.95]), ({"betas": [0.8, 0.99]}, [0.8, 0.95])):
        spec["optimizer"] = {"name": "AdamW", "arguments": arguments}
        found = Tuned(learning_rate=0.1, beta2=0.95, weight_decay=0.2).model_dump()
        run = with_hyperparameters(spec, found)
        assert run.learning_rate == 0.1
        assert run.optimizer.arguments == {"betas": betas, "weight_decay": 0.2}
        assert run.schedule.warmup is None


@pytest.mark.parametrize("change", ["code", "data", "epochs"])
def test_another_search_in_the_same_journal_starts_again(
    change: str, small_data: PreparedData, small_data_file: Path, tmp_path: Path
):
    journal, data, code = tmp_path / "optuna.journal", small_data_file, "code"
    before = search(spec_of(**SHORT), data, journal, Execution(code=code))
    spec = spec_of(**SHORT)
    if change == "epochs":
        spec = spec_of(**SHORT | {"trial_budget": Budget(epochs=1)})
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
    assert search(spec_of(**SHORT), small_data_file, journal, Execution(code="code")).equals(before)


def test_diverged_trials_are_recorded_but_never_best(small_data_file: Path, tmp_path: Path):
    spec = spec_of(**SHORT | {"hyperparameters": {"learning_rate": (0.01, 1e30)}, "startup_trials": 2})
    runs = search(spec, small_data_file, tmp_path / "optuna.journal", Execution(code="code"))
    second = runs[runs["trial"] == 1]
    # At such a rate a seed may keep a finite loss if all its units die at once; that depends on rounding.
    assert second["status"].eq("diverged").any()
    assert np.isinf(second.loc[second["status"] == "diverged", "validation_loss"]).all()
    best = runs[runs["is_best"] == 1]
    assert len(best) == 2
    assert (best["validation_loss"] < 1).all()


KILLED = """
import os, signal, sys
from itertools import count
from pathlib import Path
from batchscape.training import recorder
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


@pytest.mark.parametrize("at_run", [4, 8, 9])
def test_killed_search_resumes_to_identical_trials(
    at_run: int, reference: pd.DataFrame, small_data_file: Path, tmp_path: Path
):
    """The search is killed after its first runs: in the grid, and among trials that may be pruned."""
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
    again = search(spec_of(), small_data_file, journal, Execution(code="code"))
    assert same(again, reference)


def test_search_killed_between_two_evaluations_resumes_to_identical_trials(
    reference: pd.DataFrame, small_data_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A checkpoint at each evaluation, and an interruption within a run whose evaluations are in the journal."""
    monkeypatch.setattr(recorder, "CHECKPOINT_INTERVAL", 0.0)
    journal = tmp_path / "optuna.journal"
    count = 0

    def interrupt(self, trial, is_prunable, original=Search._reporter):
        report = original(self, trial, is_prunable)

        def counted(evaluation: int, loss: float) -> bool:
            nonlocal count
            count += 1
            stop = report(evaluation, loss)
            if count in (8, 20):
                raise KeyboardInterrupt
            return stop

        return counted

    monkeypatch.setattr(Search, "_reporter", interrupt)
    for _ in range(2):
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            search(spec_of(), small_data_file, journal, Execution(code="code"))
    assert same(search(spec_of(), small_data_file, journal, Execution(code="code")), reference)


def test_truncated_journal_is_resumed(small_data_file: Path, tmp_path: Path):
    journal = tmp_path / "optuna.journal"
    before = search(spec_of(**SHORT), small_data_file, journal, Execution(code="code"))
    content = journal.read_bytes()
    journal.write_bytes(content[:-20])
    assert same(search(spec_of(**SHORT), small_data_file, journal, Execution(code="code")), before)


def test_journal_opens_as_an_optuna_study(small_data_file: Path, tmp_path: Path):
    journal = tmp_path / "optuna.journal"
    runs = search(spec_of(**SHORT), small_data_file, journal, Execution(code="code"))
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))
    name, finalists = optuna.get_all_study_names(storage)
    study = optuna.load_study(study_name=name, storage=storage)
    assert name.startswith("bs32-")
    assert finalists.startswith("bs32-finalists-")
    assert study.best_value == runs.groupby("trial")["validation_loss"].quantile(0.9).min()
    assert json.loads(json.dumps(study.user_attrs["search"]))["run"]["batch_size"] == 32
    assert study.trials[0].intermediate_values.keys() == {1}  # one of the two evaluations of the first seed
