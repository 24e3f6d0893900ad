"""Trackers show the history of a run, each step once, and change nothing of it."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from batchscape.config.budget import Budget
from batchscape.config.model import VggConfig
from batchscape.config.run import RunSpec
from batchscape.config.training import TrainingConfig
from batchscape.io.run_directory import RunDirectory
from batchscape.training import tracking
from batchscape.training.execution import Execution
from batchscape.training.trackers import ENVIRONMENT
from batchscape.training.tracking import Tracking, track_complete_runs
from batchscape.training.train import train
from tests.helpers.tracked import assert_same_points, read_csv, read_events, read_mlflow

pytestmark = pytest.mark.slow

NAME = "bs32-lr0.05-seed3"
SPEC = RunSpec(
    batch_size=32,
    learning_rate=0.05,
    seed=3,
    model=VggConfig(channels=(2,), dense=(4,), dropout=0.3),
    training=TrainingConfig(budget=Budget(epochs=9), accelerator="cpu"),
)


@pytest.fixture(autouse=True)
def _unchanged_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove what opening a tracker sets, and the server of the person who runs the tests."""
    for name in (*ENVIRONMENT, "MLFLOW_TRACKING_URI"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def untracked(small_data_file: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return RunDirectory(
        train(SPEC, small_data_file, tmp_path_factory.mktemp("untracked") / NAME, Execution(code="code"))
    )


def train_tracked(data: Path, study: Path, trackers: str, spec: RunSpec = SPEC) -> RunDirectory:
    tracking = Tracking.of_run(trackers, study, NAME)
    return RunDirectory(train(spec, data, study / "runs" / NAME, Execution(code="code"), tracking=tracking))


def assert_same_numbers(run: RunDirectory, other: RunDirectory) -> None:
    histories = [pd.read_csv(each.history_file) for each in (run, other)]
    untimed = [column for column in histories[0] if "seconds" not in column]
    pd.testing.assert_frame_equal(histories[0][untimed], histories[1][untimed], check_exact=True)
    for name in ("best", "last"):
        assert run.weights_file(name).read_bytes() == other.weights_file(name).read_bytes()


def test_trackers_have_each_evaluation_once_and_change_no_bit(
    untracked: RunDirectory, small_data_file: Path, tmp_path: Path
):
    study = tmp_path / "digits"
    run = train_tracked(small_data_file, study, "tensorboard mlflow csv")
    assert_same_numbers(run, untracked)
    events = read_events(study, NAME)
    assert_same_points(events, run, digits=1e-6)  # of float32
    assert events["best/validation_loss"] == [
        (run.summary()["steps"], pytest.approx(run.summary()["best_validation_loss"], rel=1e-6))
    ]
    tracked = read_mlflow(study)
    assert list(tracked) == [NAME]
    assert_same_points(tracked[NAME], run)
    table = read_csv(study, NAME)
    assert_same_points({name: list(zip(table["step"], table[name], strict=True)) for name in table}, run)
    # The noise scale is measured at some evaluations only.
    scale = pd.read_csv(run.history_file).dropna(subset="noise_scale")
    assert [step for step, _ in events["noise_scale"]] == scale["step"].tolist() != []


def test_run_that_trains_again_replaces_its_points(small_data_file: Path, tmp_path: Path):
    study = tmp_path / "digits"
    train_tracked(small_data_file, study, "tensorboard mlflow csv")
    training = TrainingConfig(budget=Budget(epochs=2), accelerator="cpu")
    run = train_tracked(
        small_data_file, study, "tensorboard mlflow csv", SPEC.model_copy(update={"training": training})
    )
    assert_same_points(read_events(study, NAME), run, digits=1e-6)
    tracked = read_mlflow(study)
    assert list(tracked) == [NAME]
    assert_same_points(tracked[NAME], run)
    assert read_csv(study, NAME)["step"].tolist() == [8, 16]


def test_tracker_that_fails_is_a_warning_until_the_run_can_be_added(
    untracked: RunDirectory, small_data_file: Path, tmp_path: Path, refusal: Callable, caplog: pytest.LogCaptureFixture
):
    study = tmp_path / "digits"
    blocked = study / "tracking" / "tensorboard"
    blocked.parent.mkdir(parents=True)
    blocked.touch()  # a file in place of the folder
    with caplog.at_level(logging.WARNING, "batchscape"):
        run = train_tracked(small_data_file, study, "tensorboard csv")
    (warning,) = [each.getMessage() for each in caplog.records if each.name.startswith("batchscape")]
    assert warning.startswith(f"tracking: tensorboard failed for {NAME}, ")
    assert warning.count("\n") == 0
    assert_same_numbers(run, untracked)
    assert read_csv(study, NAME)["step"].tolist() == pd.read_csv(run.history_file)["step"].tolist()

    message = refusal(track_complete_runs, {NAME: run.path}, "tensorboard csv", study)
    assert message.startswith("tracking: not all runs could be added (tensorboard: ")
    blocked.unlink()
    added = track_complete_runs({NAME: run.path}, "tensorboard csv", study)
    assert added["tracker"].tolist() == ["tensorboard", "csv"]
    assert_same_points(read_events(study, NAME), run, digits=1e-6)
    # What is complete is not written again.
    before = [file.stat().st_mtime_ns for file in sorted(study.rglob("events.*"))]
    track_complete_runs({NAME: run.path}, "tensorboard csv", study)
    assert [file.stat().st_mtime_ns for file in sorted(study.rglob("events.*"))] == before


def test_server_that_is_away_does_not_stop_a_training(
    untracked: RunDirectory, small_data_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # where nothing listens
    run = train_tracked(small_data_file, tmp_path / "digits", "mlflow")
    assert_same_numbers(run, untracked)


def test_failure_in_the_middle_of_a_training_changes_nothing(
    untracked: RunDirectory, small_data_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tracking, "WRITE_INTERVAL", 0.0)
    study = tmp_path / "digits"
    table = study / "tracking/csv/bs32-lr0.05/seed3/metrics.csv"

    def replace_by_a_folder(evaluation: int, _: float) -> bool:
        if evaluation == 3:
            table.unlink()
            table.mkdir()
        return False

    run = RunDirectory(
        train(
            SPEC, small_data_file, study / "runs" / NAME, Execution(code="code"), replace_by_a_folder,
            tracking=Tracking.of_run("csv", study, NAME),
        )
    )  # fmt: skip
    assert_same_numbers(run, untracked)
    record = json.loads((study / "tracking/csv/.records" / f"{NAME}.json").read_text())
    assert record["is_complete"] is False


def test_wandb_keeps_runs_on_this_machine(small_data_file: Path, tmp_path: Path):
    pytest.importorskip("wandb")
    study = tmp_path / "digits"
    for _ in range(2):
        train_tracked(small_data_file, study, "wandb")
        (study / "runs" / NAME / "run.json").unlink()
        (study / "runs" / NAME / ".completed" / "run.json").unlink()
    (folder,) = (study / "tracking" / "wandb").glob("offline-run-*")
    assert next(folder.glob("run-*.wandb")).stat().st_size > 1000
