"""A killed run goes on from its last whole state and ends with the same bits."""

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

from batchscape.config.model import VggConfig
from batchscape.config.run import RunSpec
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

# Everything that a state must carry: momentum, BatchNorm, dropout, augmentation, a warm-up, patience, snapshots.
SPEC = RunSpec(
    batch_size=32,
    learning_rate=0.05,
    seed=3,
    warmup_epochs=4,
    model=VggConfig(channels=(4,), dense=(8,), normalization="batch", dropout=0.3),
    training=TrainingConfig(
        max_epochs=40, patience=12, momentum=0.9, checkpoints=(2, 5, 9, 30), augment_flip=True, augment_shift=1,
        accelerator="cpu",
    ),
)  # fmt: skip

TRAIN = """
import sys
from pathlib import Path
from batchscape.config.run import RunSpec
from batchscape.training import recorder
from batchscape.training.execution import Execution
from batchscape.training.train import train
recorder.CHECKPOINT_INTERVAL = 0.0
train(RunSpec.model_validate_json(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), Execution(code="code"))
"""


@pytest.fixture(scope="module")
def undisturbed(few_file: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return RunDirectory(train(SPEC, few_file, tmp_path_factory.mktemp("runs") / "undisturbed", Execution(code="code")))


def assert_same(run: RunDirectory, other: RunDirectory) -> None:
    """The two runs have the same weights, updates and history, bit for bit, but for the times."""
    one, two = (pd.read_csv(directory.history_file) for directory in (run, other))
    told = [column for column in one if "seconds" not in column]
    pd.testing.assert_frame_equal(one[told], two[told], check_exact=True)
    assert np.array_equal(run.update_norms(), other.update_norms())
    files = [sorted((directory.path / "weights").iterdir()) for directory in (run, other)]
    assert [file.name for file in files[0]] == [file.name for file in files[1]]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(*files, strict=True))
    for directory in (run, other):
        assert not directory.checkpoint_folder.exists()
    summaries = [directory.summary() for directory in (run, other)]
    for key in ("status", "epochs", "best_epoch", "best_validation_loss", "min_train_loss"):
        assert summaries[0][key] == summaries[1][key]


def test_a_run_stops_in_time_for_its_end_and_goes_on_to_the_same_bits(
    undisturbed: RunDirectory, few_file: Path, tmp_path: Path, refusal: Callable
):
    path = tmp_path / "run"
    # However little time there is, an epoch fits into every attempt; so it comes to its end.
    for epoch, left in enumerate((recorder.SHUTDOWN_TIME, 0.0, -60.0), start=1):
        message = refusal(
            lambda left=left: train(SPEC, few_file, path, Execution(code="code", deadline=time.time() + left))
        )
        assert message.startswith(f"run: saved a checkpoint after epoch {epoch} and stopped: ")
        assert max(len(state.history) for state in _states(RunDirectory(path))) == epoch
    assert_same(
        RunDirectory(train(SPEC, few_file, path, Execution(code="code", deadline=time.time() + 600))), undisturbed
    )


def test_a_run_that_is_killed_at_random_moments_ends_with_the_same_bits(
    undisturbed: RunDirectory, few_file: Path, tmp_path: Path
):
    command = [sys.executable, "-c", TRAIN, SPEC.model_dump_json(), str(few_file), str(tmp_path / "run")]
    run = RunDirectory(tmp_path / "run")
    rng = np.random.default_rng(0)
    epochs = []
    for _ in range(4):
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            state = run.checkpoint_folder / CHECKPOINT
            before = state.stat().st_mtime_ns if state.exists() else 0
            while process.poll() is None and (not state.exists() or state.stat().st_mtime_ns == before):
                time.sleep(0.002)
            time.sleep(rng.uniform(0, 0.05))  # in the middle of an epoch, a state or a rename
            os.kill(process.pid, signal.SIGKILL)
        if run.run_file.exists():
            break
        epochs.append(max((len(found.history) for found in _states(run)), default=0))
    assert len(epochs) >= 2
    assert epochs == sorted(epochs) and epochs[-1] > epochs[0] > 0
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    assert_same(run, undisturbed)


def _states(run: RunDirectory) -> list[TrainingState]:
    """The whole states of a run, whatever they belong to."""
    found = []
    for path in (run.checkpoint_folder / CHECKPOINT, run.checkpoint_folder / PREVIOUS_CHECKPOINT):
        if path.exists():
            with safe_open(path, framework="numpy") as file:
                found.append(read_checkpoint(path.parent, json.loads(file.metadata()["metadata"])["run_key"]))
    return found


class Stop(BaseException):
    """Ends a run in the middle, as a kill would."""


@pytest.fixture
def stopped(few_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDirectory:
    """A run that was stopped in its eighth epoch, with states after each of the seven before."""
    monkeypatch.setattr(recorder, "CHECKPOINT_INTERVAL", 0.0)
    step = recorder.TrainingModule.training_step

    def stop_in_the_eighth(module, order, index):
        if module.current_epoch == 7:
            raise Stop
        step(module, order, index)

    with monkeypatch.context() as patch:
        patch.setattr(recorder.TrainingModule, "training_step", stop_in_the_eighth)
        with pytest.raises(Stop):
            train(SPEC, few_file, tmp_path / "run", Execution(code="code"))
    return RunDirectory(tmp_path / "run")


def trained_again(run: RunDirectory, few_file: Path, monkeypatch: pytest.MonkeyPatch, **changed) -> list[int]:
    """Train once more, and return the epochs that were trained."""
    epochs = []
    step = recorder.TrainingModule.training_step

    def count(module, order, index):
        epochs.append(module.current_epoch + 1)
        step(module, order, index)

    with monkeypatch.context() as patch:
        patch.setattr(recorder.TrainingModule, "training_step", count)
        arguments = {
            "spec": SPEC,
            "data": few_file,
            "directory": run.path,
            "execution": Execution(code="code"),
            **changed,
        }
        train(**arguments)
    return epochs


def test_only_the_epochs_after_the_state_are_trained(
    stopped: RunDirectory, undisturbed: RunDirectory, few_file: Path, monkeypatch: pytest.MonkeyPatch
):
    assert trained_again(stopped, few_file, monkeypatch)[0] == 8
    assert_same(stopped, undisturbed)


@pytest.mark.parametrize("damage", ["cut", "a flipped bit", "gone", "emptied"])
def test_a_damaged_state_falls_back_to_the_one_before(
    stopped: RunDirectory, undisturbed: RunDirectory, few_file: Path, monkeypatch: pytest.MonkeyPatch, damage: str
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
    assert trained_again(stopped, few_file, monkeypatch)[0] == 7
    assert_same(stopped, undisturbed)


def test_with_both_states_damaged_the_run_begins_anew(
    stopped: RunDirectory, undisturbed: RunDirectory, few_file: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in (CHECKPOINT, PREVIOUS_CHECKPOINT):
        (stopped.checkpoint_folder / name).write_bytes(b"no state")
    assert trained_again(stopped, few_file, monkeypatch)[0] == 1
    assert_same(stopped, undisturbed)


@pytest.mark.parametrize(
    "changed",
    [{"execution": Execution(code="other code")}, {"spec": SPEC.model_copy(update={"learning_rate": 0.04})}],
    ids=["the code", "the specification"],
)
def test_a_state_of_something_else_is_not_gone_on_with(
    stopped: RunDirectory, few_file: Path, monkeypatch: pytest.MonkeyPatch, changed: dict
):
    assert trained_again(stopped, few_file, monkeypatch, **changed)[0] == 1


@pytest.mark.parametrize("deleted", [[], ["run.json"], ["run.json", "history.csv"]], ids=str)
def test_a_whole_run_whose_outputs_were_deleted_is_whole_again(
    undisturbed: RunDirectory, few_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deleted: list[str]
):
    run = RunDirectory(shutil.copytree(undisturbed.path, tmp_path / "run"))
    for name in deleted:
        (run.path / name).unlink()
    assert trained_again(run, few_file, monkeypatch) == []
    for path in (path for path in undisturbed.path.rglob("*") if path.is_file()):
        assert (run.path / path.relative_to(undisturbed.path)).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("lost", ["weights/best.safetensors", "weights/epoch00002.safetensors", "update_norms.npy"])
def test_a_run_that_lacks_a_file_trains_again(
    undisturbed: RunDirectory, few_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str
):
    run = RunDirectory(shutil.copytree(undisturbed.path, tmp_path / "run"))
    (run.path / lost).unlink()
    assert trained_again(run, few_file, monkeypatch)[0] == 1
    assert_same(run, undisturbed)


def test_a_whole_run_of_other_code_trains_again(
    undisturbed: RunDirectory, few_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run = RunDirectory(shutil.copytree(undisturbed.path, tmp_path / "run"))
    assert trained_again(run, few_file, monkeypatch, execution=Execution(code="other code"))[0] == 1


def test_a_state_is_not_written_more_often_than_it_may_be(
    few_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    written = []
    monkeypatch.setattr(recorder, "write_checkpoint", lambda *_: written.append(1))
    monkeypatch.setattr(recorder, "CHECKPOINT_INTERVAL", TIMEOUT)
    train(SPEC, few_file, tmp_path / "run", Execution(code="code"))
    assert written == []


def test_a_state_comes_back_as_it_was(tmp_path: Path):
    state = TrainingState(
        network={"conv.weight": np.arange(8, dtype=np.float32).reshape(2, 4), "count": np.array(3)},
        momentum={"0": np.ones((2, 4), np.float32)},
        best={"conv.weight": np.zeros((2, 4), np.float32)},
        update_norms=np.array([0.1, 1 / 3]),
        history=[{"epoch": 1, "train_loss": 0.1 + 0.2, "noise_scale": float("nan")}],
        best_epoch=1,
        best_loss=1 / 3,
        micro_batch=16,
    )
    write_checkpoint(tmp_path, state, "mine")
    back = read_checkpoint(tmp_path, "mine")
    for part in ("network", "momentum", "best"):
        assert getattr(back, part).keys() == getattr(state, part).keys()
        assert all(np.array_equal(array, getattr(state, part)[name]) for name, array in getattr(back, part).items())
    assert np.array_equal(back.update_norms, state.update_norms)
    assert back.history[0]["train_loss"] == state.history[0]["train_loss"]
    assert (back.best_epoch, back.best_loss, back.epoch, back.micro_batch) == (1, 1 / 3, 1, 16)
    assert read_checkpoint(tmp_path, "another's") is None
