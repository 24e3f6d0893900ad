"""Branches of a run: bit for bit the run itself, SGD on a quadratic in closed form, and the critical batch size."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from batchscape.analysis.branching import (
    cached_state,
    reached_step,
    save_state,
    smooth_losses,
    specify_branch,
    specify_prefix,
    train_branch,
    train_branches,
)
from batchscape.config.branching import BranchingConfig
from batchscape.config.budget import Budget, parse_point, point_name
from batchscape.config.run import RunSpec
from batchscape.data.prepared import write_prepared
from batchscape.errors import UserError
from batchscape.io.run_directory import RunDirectory
from batchscape.report.batch_warmup import choose_stages
from batchscape.training import plan, recorder
from batchscape.training.checkpoint import CHECKPOINT
from batchscape.training.execution import Execution
from batchscape.training.plan import StepPlan
from batchscape.training.train import train
from tests.helpers.quadratic import TASK, noise_data
from tests.helpers.recipes import recorded, three_classes

CODE = Execution(code="code")
POINTS = (Budget(epochs=1), Budget(examples=150), Budget(epochs=2))


def recipe(**changes: Any) -> RunSpec:
    """Return a run with all that a state has: momentum, an average, BatchNorm, dropout, augmentation, warm-up."""
    values: dict[str, Any] = {
        "batch_size": 12,
        "learning_rate": 0.01,
        "seed": 3,
        "model": {
            "name": "vgg", "channels": [4], "dense": [8], "normalization": "batch", "dropout": 0.3,
        },
        "training": {
            "budget": {"epochs": 4}, "evaluate_every": {"steps": 7}, "patience": None, "checkpoints": [1, 2, 3],
            "augment_flip": True, "augment_shift": 1, "accelerator": "cpu",
        },
        "optimizer": {"name": "AdamW", "arguments": {"weight_decay": 0.1}, "clip_norm": 1.0},
        "schedule": {"warmup": {"steps": 4}},
        "averaging": {"half_life": 40},
    }  # fmt: skip
    return RunSpec.model_validate(values | changes)


@pytest.fixture(scope="module")
def data_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "prepared"
    write_prepared(path, three_classes())
    return path


@pytest.fixture(scope="module")
def base(data_file: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    directory = tmp_path_factory.mktemp("base") / "run"
    return RunDirectory(train(recipe(), data_file, directory, CODE, states=POINTS))


def state_at(base: RunDirectory, point: Budget) -> Path:
    """Return the state that a run has saved at a point."""
    return base.state_folder(reached_step(base, point)) / CHECKPOINT


def branch_directory(
    base: RunDirectory,
    data_file: Path,
    folder: Path,
    point: Budget = POINTS[0],
    factor: int = 1,
    length: Budget = POINTS[2],
    state: Path | None = None,
) -> RunDirectory:
    """Train a branch, by default of two epochs, and return its directory."""
    state, config = state or state_at(base, point), BranchingConfig(length=length)
    train_branch(base, data_file, state, folder / "branch", config, point, factor, CODE)
    return RunDirectory(folder / "branch")


def test_saving_states_changes_nothing_else(base: RunDirectory, data_file: Path, tmp_path: Path):
    assert recorded(base) == recorded(RunDirectory(train(recipe(), data_file, tmp_path / "run", CODE)))
    # 97 examples in nine steps an epoch, and the first evaluation after 150 examples is that after step 14.
    names = ["step00000009", "step00000014", "step00000018"]
    assert sorted(path.name for path in (base.path / "states").iterdir()) == names


def test_branch_with_the_batch_size_of_the_run_is_the_run_bit_for_bit(
    base: RunDirectory, data_file: Path, tmp_path: Path
):
    """After the first epoch, two more end after the third one; within an epoch, after 97 + 60 + 97 + 37 examples."""
    branch = branch_directory(base, data_file, tmp_path)
    assert branch.weights("last").vector.tobytes() == base.weights("epoch00003").vector.tobytes()
    for name, buffer in branch.weights("last").buffers.items():
        assert buffer.tobytes() == base.weights("epoch00003").buffers[name].tobytes()
    assert branch.second_moments("last").tobytes() == base.second_moments(3).tobytes()
    assert branch.update_norms().tobytes() == base.update_norms()[9:27].tobytes()
    mid = branch_directory(base, data_file, tmp_path / "mid", POINTS[1], length=Budget(examples=134))
    assert mid.weights("last").vector.tobytes() == base.weights("epoch00003").vector.tobytes()


def test_run_whose_batch_grows_at_the_point_takes_the_steps_of_the_run_and_then_those_of_the_branch(
    base: RunDirectory, data_file: Path, tmp_path: Path
):
    table = pd.DataFrame({"batch_size": [12], "examples": [97.0], "critical_batch": [48.0]})
    stages = choose_stages(table, BranchingConfig().rule)
    grown = RunDirectory(train(recipe(stages=stages), data_file, tmp_path / "grown", CODE))
    branch = branch_directory(base, data_file, tmp_path, factor=4)
    for checkpoint, expected in (("epoch00001", base.weights("epoch00001")), ("epoch00003", branch.weights("last"))):
        assert grown.weights(checkpoint).vector.tobytes() == expected.vector.tobytes()
    # Nine steps in the first epoch and three in each of the others.
    assert (grown.summary()["steps"], base.summary()["steps"]) == (9 + 3 * 3, 4 * 9)


def test_run_without_measured_stages_is_the_base_run():
    assert recipe(stages=choose_stages(pd.DataFrame(columns=["critical_batch", "examples"]), "linear")) == recipe()


def test_state_of_a_run_that_has_not_saved_it_is_trained_up_to(base: RunDirectory, data_file: Path, tmp_path: Path):
    run = RunDirectory(train(recipe(), data_file, tmp_path / "run", CODE))
    saved, output = recorded(run), tmp_path / "branches" / "state.safetensors"
    for point in POINTS:
        save_state(run, data_file, output, point, CODE)
        branch = branch_directory(run, data_file, tmp_path / "again", point, 2, state=output)
        expected = branch_directory(base, data_file, tmp_path / "saved", point, 2)
        assert recorded(branch) == recorded(expected)
    assert recorded(run) == saved
    assert [path.name for path in output.parent.iterdir()] == [output.name]


def test_state_is_cached_while_the_run_and_the_code_are_the_same(data_file: Path, tmp_path: Path):
    run = RunDirectory(train(recipe(), data_file, tmp_path / "run", CODE, states=POINTS[:1]))
    saved, output = state_at(run, POINTS[0]).read_bytes(), tmp_path / "branches" / "at1epochs.csv"
    state = cached_state(run, data_file, output, POINTS[0], CODE)
    assert state.read_bytes() == saved
    written = state.stat().st_mtime_ns
    assert cached_state(run, data_file, output, POINTS[0], CODE) == state
    assert state.stat().st_mtime_ns == written
    train(recipe(seed=4), data_file, run.path, CODE, states=POINTS[:1])
    other = state_at(run, POINTS[0]).read_bytes()
    assert other != saved
    assert cached_state(run, data_file, output, POINTS[0], CODE).read_bytes() == other
    # Also how a state is trained up to may have been edited.
    assert cached_state(run, data_file, output, POINTS[0], Execution(code="edited")).read_bytes() != other
    assert len(list((output.parent / ".cache").iterdir())) == 1


def test_state_that_was_moved_before_a_kill_is_trained_up_to_again(data_file: Path, tmp_path: Path):
    run = RunDirectory(train(recipe(), data_file, tmp_path / "run", CODE))
    output = tmp_path / "branches" / "state.safetensors"
    save_state(run, data_file, output, POINTS[0], CODE)
    expected = recorded(branch_directory(run, data_file, tmp_path / "first", POINTS[0], 2, state=output))
    # As the job leaves it if it is killed after the state was moved: Snakemake deletes the output.
    output.unlink()
    step = reached_step(run, POINTS[0])
    assert step is not None
    spec = specify_prefix(recipe(), step, run.summary()["training_examples"])
    prefix = RunDirectory(train(spec, data_file, output.parent / "at1epochs-prefix", CODE))
    assert prefix.is_complete
    save_state(run, data_file, output, POINTS[0], CODE)
    assert recorded(branch_directory(run, data_file, tmp_path / "again", POINTS[0], 2, state=output)) == expected


def test_state_that_a_run_has_saved_is_used(data_file: Path, tmp_path: Path):
    run = RunDirectory(train(recipe(), data_file, tmp_path / "run", CODE, states=POINTS))
    content = state_at(run, POINTS[0]).read_bytes()
    save_state(run, data_file, tmp_path / "state.safetensors", POINTS[0], CODE)
    assert (tmp_path / "state.safetensors").read_bytes() == content
    assert not state_at(run, POINTS[0]).exists()
    train(recipe(), data_file, run.path, Execution(code="other"))
    assert not (run.path / "states").exists()


def test_corrupt_state_is_reported(base: RunDirectory, data_file: Path, tmp_path: Path):
    (tmp_path / "state").write_bytes(b"x")
    with pytest.raises(UserError, match=r"state: is missing or corrupt, so nothing can branch from it; delete it"):
        branch_directory(base, data_file, tmp_path, state=tmp_path / "state")


class Stop(Exception):
    """Interrupts a training."""


def interrupt_after(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a training write so many checkpoints before it is interrupted."""
    save, written = recorder.Recorder._save_checkpoint, 0

    def save_and_maybe_stop(self: recorder.Recorder, folder: Path) -> None:
        nonlocal written
        save(self, folder)
        written += 1
        if written == count:
            raise Stop

    monkeypatch.setattr(recorder.Recorder, "_save_checkpoint", save_and_maybe_stop)


def test_interrupted_branch_resumes_to_identical_bits(
    base: RunDirectory, data_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Its first interval ends after step 15, and the second one after step 17."""
    arguments = {"point": POINTS[1]}
    expected = recorded(branch_directory(base, data_file, tmp_path / "expected", **arguments))
    monkeypatch.setattr(plan, "SEGMENT_STEPS", 1)
    monkeypatch.setattr(recorder, "CHECKPOINT_INTERVAL", 0.0)
    for count in (1, 1, 2):  # after steps 15, 16 and 18
        with monkeypatch.context() as interrupted, pytest.raises(Stop):
            interrupt_after(count, interrupted)
            branch_directory(base, data_file, tmp_path, **arguments)
    found = recorded(branch_directory(base, data_file, tmp_path, **arguments))
    # Sums over a segment differ by rounding if it is cut elsewhere.
    losses = ("train_loss", "train_accuracy")
    assert {key: value for key, value in found.items() if key not in losses} == {
        key: value for key, value in expected.items() if key not in losses
    }


def branch_rows(
    run: RunDirectory,
    data_file: Path,
    folder: Path,
    factors: tuple[int, ...],
    key: str = "key",
    state: Path | None = None,
) -> pd.DataFrame:
    """Train the branches of a run after its first epoch, as a job does."""
    state, output = state or state_at(run, POINTS[0]), folder / "at1epochs.csv"
    return train_branches(run, data_file, state, output, BranchingConfig(), POINTS[0], factors, [key], CODE)


def cached_files(folder: Path) -> dict[str, int]:
    """Return when each entry of the cache was written."""
    return {path.name: path.stat().st_mtime_ns for path in (folder / ".cache").iterdir()}


def test_new_factor_trains_only_its_own_branch(base: RunDirectory, data_file: Path, tmp_path: Path):
    first = branch_rows(base, data_file, tmp_path, (1, 4))
    before = cached_files(tmp_path)
    rows = branch_rows(base, data_file, tmp_path, (1, 2, 4))
    assert rows["factor"].tolist() == [1, 2, 4]
    pd.testing.assert_frame_equal(rows[rows["factor"] != 2].reset_index(drop=True), first, check_exact=True)
    after = cached_files(tmp_path)
    assert len(before) == 2 and len(after) == 3 and before.items() < after.items()  # and no branch is left
    alone = train_branch(base, data_file, state_at(base, POINTS[0]), tmp_path / "b", BranchingConfig(), POINTS[0], 2)
    pd.testing.assert_frame_equal(rows[rows["factor"] == 2].reset_index(drop=True), alone, check_exact=True)


def test_other_settings_code_or_state_train_all_branches_again(base: RunDirectory, data_file: Path, tmp_path: Path):
    first = branch_rows(base, data_file, tmp_path, (1, 2))
    before = cached_files(tmp_path)
    branch_rows(base, data_file, tmp_path, (1, 2), key="other")
    after = cached_files(tmp_path)
    assert len(after) == 2 and not before.keys() & after.keys()  # outdated entries are deleted
    other = RunDirectory(train(recipe(seed=4), data_file, tmp_path / "run", CODE, states=POINTS[:1]))
    rows = branch_rows(base, data_file, tmp_path, (1, 2), key="other", state=state_at(other, POINTS[0]))
    assert (rows["train_loss"] != first["train_loss"]).all()


def test_kill_loses_at_most_the_branch_that_is_training(
    base: RunDirectory, data_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    expected = branch_rows(base, data_file, tmp_path / "expected", (1, 2, 4))
    monkeypatch.setattr(recorder, "CHECKPOINT_INTERVAL", 0.0)
    with monkeypatch.context() as interrupted, pytest.raises(Stop):
        interrupt_after(10, interrupted)  # in the second branch: the first one has nine steps
        branch_rows(base, data_file, tmp_path, (1, 2, 4))
    # Of what a job leaves beside its output, a forced job deletes only this folder.
    assert {path.name for path in tmp_path.iterdir()} == {".cache", "expected"}
    (finished,) = (path for path in (tmp_path / ".cache").iterdir() if path.is_file())
    written = finished.stat().st_mtime_ns
    pd.testing.assert_frame_equal(branch_rows(base, data_file, tmp_path, (1, 2, 4)), expected, check_exact=True)
    assert finished.stat().st_mtime_ns == written


def test_branch_has_its_batch_size_and_learning_rate_and_all_else_of_the_run():
    spec = specify_branch(recipe(), 9, 4, 97, BranchingConfig(length=Budget(epochs=2), rule="sqrt"))
    found = StepPlan(spec, 97)
    assert [(part.epoch, part.sizes) for part in found.parts(9, found.total)] == [(2, [48, 48, 1]), (3, [48, 48, 1])]
    assert [found.learning_rate_factor(step) for step in (9, 10, 15)] == [1, 2, 2]
    assert found.examples(found.total) == 3 * 97
    assert spec.optimizer == recipe().optimizer
    assert specify_branch(recipe(), 9, 4, 97, BranchingConfig(rule="linear")).stages[0].learning_rate_factor == 4
    assert specify_branch(recipe(), 9, 4, 97, BranchingConfig(rule="constant")).stages[0].learning_rate_factor == 1
    with pytest.raises(UserError, match=r"branching\.points: step 3 is within the warm-up of 4 steps"):
        specify_branch(recipe(), 3, 4, 97, BranchingConfig())
    with pytest.raises(UserError, match=r"branching\.factors: 9 times batch size 12 is more than the 97 training exa"):
        specify_branch(recipe(), 9, 9, 97, BranchingConfig())


def test_row_of_a_branch(base: RunDirectory, data_file: Path, tmp_path: Path):
    config = BranchingConfig(length=Budget(epochs=2), rule="sqrt", smoothing=0.5)
    state = state_at(base, POINTS[0])
    (row,) = train_branch(base, data_file, state, tmp_path / "branch", config, POINTS[0], 4).to_dict("records")
    assert (row["point"], row["factor"], row["branch_batch_size"], row["branch_status"]) == (
        "1epochs",
        4,
        48,
        "completed",
    )
    assert (row["examples"], row["epoch"], row["step"]) == (97, 1, 9)
    assert (row["branch_steps"], row["branch_examples"]) == (6, 2 * 97)
    assert row["branch_learning_rate"] == pytest.approx(0.02)
    history = pd.read_csv(tmp_path / "branch" / "history.csv")
    assert history["learning_rate"].tolist() == [0.02] * len(history)
    # BatchNorm needs the complete batch at once, also where it is larger than that of the run.
    assert RunDirectory(tmp_path / "branch").summary()["environment"]["micro_batch"] == 48
    assert row["train_loss"] == pytest.approx(smooth_losses(history, 97, 194, 0.5)[0])


def test_point_after_the_end_of_a_run_is_not_reached(base: RunDirectory, data_file: Path, tmp_path: Path):
    for point in (Budget(epochs=4), Budget(steps=1000)):
        save_state(base, data_file, tmp_path / "state", point, CODE)
        config = BranchingConfig()
        (row,) = train_branch(base, data_file, tmp_path / "state", tmp_path, config, point, 2).to_dict("records")
        assert row["branch_status"] == "not reached"
        assert np.isnan(row["train_loss"])


def test_smoothed_loss_is_the_mean_over_the_examples_at_the_end():
    history = pd.DataFrame(
        {"examples": [110, 130, 140, 200], "train_loss": [9.0, 5.0, 4.0, 1.0], "validation_loss": [9.0, 5.0, 2.0, 1.0]}
    )
    assert smooth_losses(history, 100, 100, 0.7) == (pytest.approx((4 * 10 + 1 * 60) / 70), 1.5)
    # Of an interval that begins before, the examples in the part count.
    assert smooth_losses(history, 100, 100, 0.65) == (pytest.approx((4 * 5 + 1 * 60) / 65), 1.5)
    assert smooth_losses(history, 100, 100, 1.0)[0] == pytest.approx((9 * 10 + 5 * 20 + 4 * 10 + 1 * 60) / 100)
    assert smooth_losses(history, 100, 100, 0.001) == (1.0, 1.0)


def test_names_of_points():
    for point in (Budget(epochs=4), Budget(steps=500), Budget(examples=20000)):
        assert parse_point(point_name(point)) == point
    assert point_name(Budget(steps=500)) == "500steps"


def quadratic_spec(curvature: float, rate: float, start: list[float], **training: Any) -> RunSpec:
    """Return a run of two epochs of SGD with batches of four on the noisy quadratic."""
    return RunSpec.model_validate(
        {
            "batch_size": 4,
            "learning_rate": rate,
            "seed": 0,
            "model": {
                "name": "tests.helpers.quadratic:NoisyQuadratic",
                "arguments": {"eigenvalues": [curvature] * len(start), "start": start},
            },
            "task": TASK,
            "training": {"budget": {"epochs": 2}, "patience": None, "accelerator": "cpu", **training},
        }
    )


def test_diverged_branch_is_a_row(tmp_path: Path):
    """With η·h = 1.5 each step multiplies the weights by −0.5, with twice that by −2."""
    write_prepared(tmp_path / "data", noise_data(np.zeros((64, 1))))
    spec, config = quadratic_spec(1.0, 1.5, [1e153], evaluate_every={"steps": 1}), BranchingConfig()
    run = RunDirectory(train(spec, tmp_path / "data", tmp_path / "run", states=[Budget(steps=1)]))
    point = Budget(steps=1)
    found = {
        factor: train_branch(
            run, tmp_path / "data", state_at(run, point), tmp_path / str(factor), config, point, factor
        ).iloc[0]
        for factor in (1, 2)
    }
    assert found[1]["branch_status"] == "completed"
    assert np.isfinite(found[1]["train_loss"])
    assert found[2]["branch_status"] == "diverged"
    assert np.isnan(found[2]["train_loss"])


@pytest.mark.parametrize("factor", [1, 2, 8])
def test_branch_of_sgd_on_a_noisy_quadratic_has_the_expected_loss(tmp_path: Path, factor: int):
    """θ_T = a^T·θ_0 − η·Σ_s a^(T−1−s)·ξ_s with a = 1 − η·h, over an epoch of means ξ_s of batches of n examples.

    Drawn without replacement, these have the variance S²·(1/B − 1/n) and the covariance −S²/n. The sum over thousands
    of coordinates with the same curvature makes the Monte Carlo error of a single run small.
    """
    curvature, rate, size, count = 2.0, 0.02, 4, 64
    noise = np.random.default_rng(0).normal(size=(count, 4000))
    noise = (noise - noise.mean(0)).astype(np.float32)
    write_prepared(tmp_path / "data", noise_data(noise))
    spec = quadratic_spec(curvature, rate, [0.1] * 4000, checkpoints=[1])
    run = RunDirectory(train(spec, tmp_path / "data", tmp_path / "run", states=[Budget(epochs=1)]))
    branch, state = tmp_path / "branch", state_at(run, Budget(epochs=1))
    train_branch(run, tmp_path / "data", state, branch, BranchingConfig(rule="linear"), Budget(epochs=1), factor)
    before, after = run.weights("epoch00001").vector, RunDirectory(branch).weights("last").vector
    steps, eta = count // (size * factor), rate * factor
    powers = (1 - eta * curvature) ** np.arange(steps)
    covariance = np.full((steps, steps), -1 / count) + np.eye(steps) / (size * factor)
    variance = (noise.astype(np.float64) ** 2).sum() / (count - 1)
    expected = (1 - eta * curvature) ** (2 * steps) * (
        before @ before
    ) + eta**2 * variance * powers @ covariance @ powers
    assert after @ after == pytest.approx(expected, rel=0.05)
    assert abs(after @ after - before @ before) > 0.1 * expected
