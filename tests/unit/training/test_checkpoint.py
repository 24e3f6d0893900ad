"""A killed run resumes from its last complete checkpoint to identical bits."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors import safe_open

from batchscape.config.budget import Budget, Warmup
from batchscape.config.model import VggConfig
from batchscape.config.optimizer import OptimizerConfig
from batchscape.config.run import RunSpec
from batchscape.config.schedule import ScheduleConfig
from batchscape.config.training import TrainingConfig
from batchscape.io.run_directory import RunDirectory
from batchscape.training import recorder
from batchscape.training.checkpoint import (
    CHECKPOINT,
    PREVIOUS_CHECKPOINT,
    TrainingState,
    read_checkpoint,
    write_checkpoint,
)
from batchscape.training.execution import Execution
from batchscape.training.train import train
from tests.helpers.waiting import TIMEOUT

# With everything that a checkpoint must restore: momentum, BatchNorm, dropout, augmentation, warm-up, patience.
SPEC = RunSpec(
    batch_size=32,
    learning_rate=0.05,
    seed=3,
    model=VggConfig(channels=(4,), dense=(8,), normalization="batch", dropout=0.3),
    training=TrainingConfig(
        budget=Budget(epochs=40), patience=12, checkpoints=(2, 5, 9, 30), augment_flip=True, augment_shift=1,
        accelerator="cpu",
    ),
    optimizer=OptimizerConfig(arguments={"momentum": 0.9}),
    schedule=ScheduleConfig(warmup=Warmup(epochs=4)),
)  # fmt: skip

TRAIN = """
import sys
from pathlib import Path
from batchscape.config.optimizer import OptimizerConfig
from batchscape.config.run import RunSpec
from batchscape.training import recorder
from batchscape.training.execution import Execution
from batchscape.training.train import train
recorder.CHECKPOINT_INTERVAL = 0.0
train(RunSpec.model_validate_json(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), Execution(code="code"))
"""


@pytest.fixture(scope="module")
def uninterrupted(small_data_file: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return RunDirectory(
        train(SPEC, small_data_file, tmp_path_factory.mktemp("runs") / "uninterrupted", Execution(code="code"))
    )


def assert_same(run: RunDirectory, other: RunDirectory) -> None:
    """Assert that two runs have identical weights, update norms and history, except for times."""
    one, two = (pd.read_csv(directory.history_file) for directory in (run, other))
    untimed = [column for column in one if "seconds" not in column]
    pd.testing.assert_frame_equal(one[untimed], two[untimed], check_exact=True)
    assert np.array_equal(run.update_norms(), other.update_norms())
    files = [sorted((directory.path / "weights").iterdir()) for directory in (run, other)]
    assert [file.name for file in files[0]] == [file.name for file in files[1]]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(*files, strict=True))
    for directory in (run, other):
        assert not directory.checkpoint_folder.exists()
    summaries = [directory.summary() for directory in (run, other)]
    for key in ("status", "epochs", "steps", "best_epoch", "best_validation_loss", "min_train_loss"):
        assert summaries[0][key] == summaries[1][key]


def test_run_stops_before_the_deadline_and_resumes_to_identical_bits(
    uninterrupted: RunDirectory, small_data_file: Path, tmp_path: Path, refusal: Callable
):
    path = tmp_path / "run"
    # Each attempt trains at least one epoch, however near its deadline is, so the run completes.
    for epoch, left in enumerate((recorder.SHUTDOWN_TIME, 0.0, -60.0), start=1):
        message = refusal(
            lambda left=left: train(SPEC, small_data_file, path, Execution(code="code", deadline=time.time() + left))
        )
        assert message.startswith(f"run: saved a checkpoint after step {8 * epoch} and stopped: ")
        assert max(len(state.history) for state in read_all_checkpoints(RunDirectory(path))) == epoch
    assert_same(
        RunDirectory(train(SPEC, small_data_file, path, Execution(code="code", deadline=time.time() + 600))),
        uninterrupted,
    )


def test_run_killed_at_random_moments_resumes_to_identical_bits(
    uninterrupted: RunDirectory, small_data_file: Path, tmp_path: Path
):
    command = [sys.executable, "-c", TRAIN, SPEC.model_dump_json(), str(small_data_file), str(tmp_path / "run")]
    run = RunDirectory(tmp_path / "run")
    rng = np.random.default_rng(0)
    epochs = []
    for _ in range(4):
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            state = run.checkpoint_folder / CHECKPOINT
            before = state.stat().st_mtime_ns if state.exists() else 0
            while process.poll() is None and (not state.exists() or state.stat().st_mtime_ns == before):
                time.sleep(0.002)
            time.sleep(rng.uniform(0, 0.05))  # during an epoch, a checkpoint or a rename
            os.kill(process.pid, signal.SIGKILL)
        if run.run_file.exists():
            break
        epochs.append(max((len(state.history) for state in read_all_checkpoints(run)), default=0))
    assert len(epochs) >= 2
    assert epochs == sorted(epochs) and epochs[-1] > epochs[0] > 0
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    assert_same(run, uninterrupted)


def read_all_checkpoints(run: RunDirectory) -> list[TrainingState]:
    """Return the complete checkpoints of a run, of any key."""
    states = []
    for path in (run.checkpoint_folder / CHECKPOINT, run.checkpoint_folder / PREVIOUS_CHECKPOINT):
        if path.exists():
            with safe_open(path, framework="numpy") as file:
                states.append(read_checkpoint(path.parent, json.loads(file.metadata()["metadata"])["run_key"]))
    return states


class Stop(BaseException):
    """Stops a run as a kill would."""


@pytest.fixture
def stopped(small_data_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDirectory:
    """A run that was stopped in its eighth epoch, with checkpoints after the previous ones."""
    monkeypatch.setattr(recorder, "CHECKPOINT_INTERVAL", 0.0)
    step = recorder.TrainingModule.training_step

    def stop_in_epoch_eight(module, order, index):
        if module.current_epoch == 7:
            raise Stop
        step(module, order, index)

    with monkeypatch.context() as patch:
        patch.setattr(recorder.TrainingModule, "training_step", stop_in_epoch_eight)
        with pytest.raises(Stop):
            train(SPEC, small_data_file, tmp_path / "run", Execution(code="code"))
    return RunDirectory(tmp_path / "run")


def count_trained_epochs(
    run: RunDirectory, small_data_file: Path, monkeypatch: pytest.MonkeyPatch, **changed
) -> list[int]:
    """Train again, and return the epochs that were trained."""
    epochs = []
    step = recorder.TrainingModule.training_step

    def count(module, order, index):
        epochs.append(module.current_epoch + 1)
        step(module, order, index)

    with monkeypatch.context() as patch:
        patch.setattr(recorder.TrainingModule, "training_step", count)
        arguments = {
            "spec": SPEC,
            "data": small_data_file,
            "directory": run.path,
            "execution": Execution(code="code"),
            **changed,
        }
        train(**arguments)
    return epochs


def test_only_epochs_after_the_checkpoint_are_trained(
    stopped: RunDirectory, uninterrupted: RunDirectory, small_data_file: Path, monkeypatch: pytest.MonkeyPatch
):
    assert count_trained_epochs(stopped, small_data_file, monkeypatch)[0] == 8
    assert_same(stopped, uninterrupted)


@pytest.mark.parametrize("damage", ["cut", "a flipped bit", "gone", "emptied"])
def test_corrupt_checkpoint_falls_back_to_the_previous_one(
    stopped: RunDirectory,
    uninterrupted: RunDirectory,
    small_data_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: str,
):
    path = stopped.checkpoint_folder / CHECKPOINT
    content = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    elif damage == "a flipped bit":
        content[-100] ^= 4
        path.write_bytes(content)
    else:
        path.write_bytes(content[: 0 if damage == "emptied" else -7])
    assert count_trained_epochs(stopped, small_data_file, monkeypatch)[0] == 7
    assert_same(stopped, uninterrupted)


def test_run_restarts_if_both_checkpoints_are_corrupt(
    stopped: RunDirectory, uninterrupted: RunDirectory, small_data_file: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in (CHECKPOINT, PREVIOUS_CHECKPOINT):
        (stopped.checkpoint_folder / name).write_bytes(b"no state")
    assert count_trained_epochs(stopped, small_data_file, monkeypatch)[0] == 1
    assert_same(stopped, uninterrupted)


@pytest.mark.parametrize(
    "changed",
    [{"execution": Execution(code="other code")}, {"spec": SPEC.model_copy(update={"learning_rate": 0.04})}],
    ids=["the code", "the specification"],
)
def test_checkpoint_of_another_run_is_ignored(
    stopped: RunDirectory, small_data_file: Path, monkeypatch: pytest.MonkeyPatch, changed: dict
):
    assert count_trained_epochs(stopped, small_data_file, monkeypatch, **changed)[0] == 1


@pytest.mark.parametrize("deleted", [[], ["run.json"], ["run.json", "history.csv"]], ids=str)
def test_deleted_outputs_of_a_complete_run_are_restored(
    uninterrupted: RunDirectory,
    small_data_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    deleted: list[str],
):
    run = RunDirectory(shutil.copytree(uninterrupted.path, tmp_path / "run"))
    for name in deleted:
        (run.path / name).unlink()
    assert count_trained_epochs(run, small_data_file, monkeypatch) == []
    for path in (path for path in uninterrupted.path.rglob("*") if path.is_file()):
        assert (run.path / path.relative_to(uninterrupted.path)).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("lost", ["weights/best.safetensors", "weights/epoch00002.safetensors", "update_norms.npy"])
def test_run_with_a_missing_file_trains_again(
    uninterrupted: RunDirectory, small_data_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str
):
    run = RunDirectory(shutil.copytree(uninterrupted.path, tmp_path / "run"))
    (run.path / lost).unlink()
    assert count_trained_epochs(run, small_data_file, monkeypatch)[0] == 1
    assert_same(run, uninterrupted)


def test_complete_run_of_other_code_trains_again(
    uninterrupted: RunDirectory, small_data_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run = RunDirectory(shutil.copytree(uninterrupted.path, tmp_path / "run"))
    assert count_trained_epochs(run, small_data_file, monkeypatch, execution=Execution(code="other code"))[0] == 1


def test_checkpoints_are_written_at_most_once_per_interval(
    small_data_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    written = []
    monkeypatch.setattr(recorder, "write_checkpoint", lambda *_: written.append(1))
    monkeypatch.setattr(recorder, "CHECKPOINT_INTERVAL", TIMEOUT)
    train(SPEC, small_data_file, tmp_path / "run", Execution(code="code"))
    assert written == []


def test_checkpoint_round_trips(tmp_path: Path):
    state = TrainingState(
        step=12,
        network={"conv.weight": np.arange(8, dtype=np.float32).reshape(2, 4), "count": np.array(3)},
        optimizer={"0/momentum_buffer": np.ones((2, 4), np.float32)},
        optimizer_values={"param_groups": [{"lr": 0.1}]},
        average={"weights/conv.weight": np.ones((2, 4), np.float32)},
        best={"conv.weight": np.zeros((2, 4), np.float32)},
        update_norms=np.array([0.1, 1 / 3]),
        previous_weights=np.arange(3.0),
        interval_sums=np.array([0.1, 0.7]),
        interval_values={"weight": 64.0, "clipped": 3},
        history=[{"epoch": 1, "train_loss": 0.1 + 0.2, "noise_scale": float("nan")}],
        best_evaluation=1,
        best_loss=1 / 3,
        micro_batch=16,
    )
    write_checkpoint(tmp_path, state, "mine")
    back = read_checkpoint(tmp_path, "mine")
    for part in ("network", "optimizer", "average", "best"):
        assert getattr(back, part).keys() == getattr(state, part).keys()
        assert all(np.array_equal(array, getattr(state, part)[name]) for name, array in getattr(back, part).items())
    for name in ("update_norms", "previous_weights", "interval_sums"):
        assert np.array_equal(getattr(back, name), getattr(state, name))
    for name in ("step", "optimizer_values", "interval_values"):
        assert getattr(back, name) == getattr(state, name)
    assert back.history[0]["train_loss"] == state.history[0]["train_loss"]
    assert (back.best_evaluation, back.best_loss, back.micro_batch) == (1, 1 / 3, 16)
    assert read_checkpoint(tmp_path, "another's") is None
