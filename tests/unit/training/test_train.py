"""Training: runs are reproducible bit for bit, and their records are correct."""

import csv
import json
import math
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch.nn import functional as F

from batchscape.config.budget import Warmup
from batchscape.config.optimizer import OptimizerConfig
from batchscape.config.run import RunSpec
from batchscape.config.schedule import ScheduleConfig
from batchscape.config.training import TrainingConfig
from batchscape.data.prepared import PreparedData, prepared_digest, write_prepared
from batchscape.io.run_directory import RunDirectory
from batchscape.training.execution import Execution
from batchscape.training.sampler import epoch_order
from batchscape.training.train import train
from tests.helpers.objectives import image_data, images_of, labels_of

EPOCHS = 3
LAYERS = ["conv1", "conv2", "dense1", "output"]
TIMES = ["train_seconds", "train_cpu_seconds", "validation_seconds", "validation_cpu_seconds"]


def spec_of(
    batch_size: int = 32,
    learning_rate: float = 0.05,
    seed: int = 1,
    epochs: int = EPOCHS,
    warmup_epochs: int = 0,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    **training,
) -> RunSpec:
    settings = {"budget": {"epochs": epochs}, "patience": 100, "accelerator": "cpu", **training}
    return RunSpec(
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        training=TrainingConfig.model_validate(settings),
        optimizer=OptimizerConfig(arguments={"momentum": momentum, "weight_decay": weight_decay}),
        schedule=ScheduleConfig(warmup=Warmup(epochs=warmup_epochs) if warmup_epochs else None),
    )


# Saves its weights after each epoch.
CHECKPOINTED = spec_of(momentum=0.9, weight_decay=0.001, checkpoints=list(range(1, EPOCHS + 1)))
# Steps this small change no loss, so no epoch is better than the first.
STILL = spec_of(learning_rate=1e-30, patience=2, epochs=30)
# After the first step no logit is finite.
EXPLODING = spec_of(learning_rate=1e30, momentum=0.9)
# Steps too large to improve for long, but small enough to remain finite.
RESTLESS = spec_of(learning_rate=0.3, patience=2, epochs=60)


class Trained:
    """A completed run, read without the library where that is easy."""

    def __init__(self, path: Path):
        self.path = path

    @property
    def summary(self) -> dict[str, Any]:
        def refuse(constant: str) -> None:
            raise ValueError(f"{constant} is not JSON")

        return json.loads((self.path / "run.json").read_text(encoding="utf-8"), parse_constant=refuse)

    @property
    def history(self) -> list[dict[str, float]]:
        with (self.path / "history.csv").open(newline="", encoding="utf-8") as stream:
            return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(stream)]

    @property
    def history_without_times(self) -> list[dict[str, float]]:
        return [{key: value for key, value in row.items() if key not in TIMES} for row in self.history]

    @property
    def update_norms(self) -> np.ndarray:
        return np.load(self.path / "update_norms.npy", allow_pickle=False)

    @property
    def files(self) -> dict[str, bytes]:
        """The content of all files without times."""
        paths = [path for path in self.path.rglob("*") if path.is_file()]
        timed = {"history.csv", "run.json"}
        return {str(path.relative_to(self.path)): path.read_bytes() for path in paths if path.name not in timed}

    def column(self, name: str) -> list[float]:
        return [row[name] for row in self.history]

    def weights(self, name: str) -> dict[str, np.ndarray]:
        return load_file(self.path / "weights" / f"{name}.safetensors")

    def bytes_of(self, name: str) -> bytes:
        return (self.path / "weights" / f"{name}.safetensors").read_bytes()

    def equals(self, other: "Trained") -> bool:
        """Return whether weights, update norms and histories are identical; NaN equals NaN."""
        return self.files == other.files and repr(self.history_without_times) == repr(other.history_without_times)


@pytest.fixture(scope="module")
def fresh(small_data_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[RunSpec], Trained]:
    """Train a run in a new directory."""
    return lambda spec: Trained(train(spec, small_data_file, tmp_path_factory.mktemp("runs") / "run"))


@pytest.fixture(scope="module")
def trained(fresh: Callable) -> Callable[[RunSpec], Trained]:
    """Train a run once for all tests that read it."""
    runs: dict[str, Trained] = {}

    def get(spec: RunSpec) -> Trained:
        key = spec.model_dump_json()
        if key not in runs:
            runs[key] = fresh(spec)
        return runs[key]

    return get


# An independent reference: the network and SGD in a few lines, starting from the file of initial weights.


def logits(weights: dict[str, torch.Tensor], images: np.ndarray) -> torch.Tensor:
    signal = torch.from_numpy(images).to(weights["output.bias"].dtype) / 255
    for block in ("conv1", "conv2"):
        signal = F.conv2d(signal, weights[f"{block}.weight"], weights[f"{block}.bias"], padding=1)
        signal = F.max_pool2d(torch.relu(signal), 2)
    signal = torch.relu(F.linear(signal.flatten(1), weights["dense1.weight"], weights["dense1.bias"]))
    return F.linear(signal, weights["output.weight"], weights["output.bias"])[:, 0]


def losses(outputs: torch.Tensor, labels: np.ndarray) -> torch.Tensor:
    """−log of the probability of the true label, by example: log(1 + eᶻ) − yz."""
    return F.softplus(outputs) - outputs * torch.from_numpy(labels)


def reference_epochs(
    weights: dict[str, torch.Tensor], data: PreparedData, spec: RunSpec
) -> Iterator[tuple[float, list[float]]]:
    """Train `weights` in place; after each epoch yield its training loss and its update norms."""
    momentum, decay = (spec.optimizer.arguments[name] for name in ("momentum", "weight_decay"))
    velocity = {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
    warmup_epochs = spec.schedule.warmup.epochs if spec.schedule.warmup else 0
    warming = iter(np.linspace(0, 1, 1 + warmup_epochs * -(-len(data.train) // spec.batch_size))[1:])
    for epoch in range(1, spec.training.budget.epochs + 1):
        order = epoch_order(len(data.train), spec.seed, epoch)
        total, norms = 0.0, []
        for start in range(0, len(order), spec.batch_size):
            batch = order[start : start + spec.batch_size]
            rate = spec.learning_rate * next(warming, 1.0)
            loss = losses(logits(weights, images_of(data.train)[batch]), labels_of(data.train)[batch])
            gradients = torch.autograd.grad(loss.mean(), list(weights.values()))
            total += loss.double().sum().item()
            squares = 0.0
            with torch.no_grad():
                for (name, tensor), gradient in zip(weights.items(), gradients, strict=True):
                    velocity[name] = momentum * velocity[name] + gradient + decay * tensor
                    squares += (rate * velocity[name].double()).square().sum().item()
                    tensor -= rate * velocity[name]
            norms.append(math.sqrt(squares))
        yield total / len(order), norms


def as_leaves(weights: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array.copy()).requires_grad_() for name, array in weights.items()}


def assert_equal_up_to_rounding(actual: np.ndarray, expected: np.ndarray, scale: float) -> None:
    """Allow a few larger errors: where rounding changes the maximum of a pooling window, a gradient moves."""
    assert actual.shape == expected.shape
    error = np.abs(actual - expected) / scale
    assert np.median(error) <= 1e-5
    assert error.max() <= 1e-3


@pytest.mark.parametrize(
    "spec",
    [
        spec_of(),
        spec_of(batch_size=64, seed=2),
        spec_of(batch_size=230),
        spec_of(batch_size=229),
        spec_of(momentum=0.9, weight_decay=0.01),
        spec_of(warmup_epochs=2, momentum=0.9),
        spec_of(warmup_epochs=EPOCHS, batch_size=229),
    ],
    ids=[
        "plain",
        "batch 64",
        "full batch",
        "a last batch of one",
        "momentum and weight decay",
        "warm-up",
        "warm-up to the end",
    ],
)
def test_training_equals_a_reference_sgd(spec: RunSpec, trained: Callable, small_data: PreparedData):
    run = trained(spec)
    weights = as_leaves(run.weights("init"))
    train_losses, norms = zip(*reference_epochs(weights, small_data, spec), strict=True)
    last = run.weights("last")
    assert last.keys() == weights.keys()
    for name, expected in weights.items():
        moved = np.abs(last[name] - run.weights("init")[name]).max()
        assert_equal_up_to_rounding(last[name], expected.detach().numpy(), scale=moved)
    assert run.column("train_loss") == pytest.approx(train_losses, rel=1e-6)
    expected_norms = np.concatenate(norms)
    assert_equal_up_to_rounding(run.update_norms, expected_norms, scale=expected_norms.max())


# Reproducibility.


def test_training_twice_gives_identical_files(trained: Callable, fresh: Callable):
    first, second = trained(CHECKPOINTED), fresh(CHECKPOINTED)
    assert len(first.files) == len(["init", "best", "last"]) + EPOCHS + len(["update_norms.npy"])
    assert first.equals(second)


def test_global_random_states_do_not_matter(trained: Callable, fresh: Callable, randomness):
    randomness.seed(12345)
    assert fresh(CHECKPOINTED).equals(trained(CHECKPOINTED))


def test_surrounding_slurm_job_does_not_matter(trained: Callable, fresh: Callable, monkeypatch: pytest.MonkeyPatch):
    # By default, Lightning reads its world size from these: it rejects some, and shards the data for others.
    variables = {"JOB_ID": 7, "JOB_NAME": "job", "NTASKS": 2, "NNODES": 1, "NODEID": 0, "PROCID": 0, "LOCALID": 0}
    for name, value in variables.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    assert fresh(CHECKPOINTED).equals(trained(CHECKPOINTED))


def test_leftover_files_of_another_run_do_not_matter(trained: Callable, small_data_file: Path, tmp_path: Path):
    leftover = tmp_path / "run" / "weights" / "epoch00099.safetensors"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"of another run")
    assert Trained(train(CHECKPOINTED, small_data_file, tmp_path / "run")).equals(trained(CHECKPOINTED))
    assert not leftover.exists()


def test_initial_weights_depend_on_the_seed_only(trained: Callable):
    first = trained(CHECKPOINTED).bytes_of("init")
    assert trained(spec_of(batch_size=64, learning_rate=0.3)).bytes_of("init") == first
    assert trained(spec_of(seed=2)).bytes_of("init") != first


# The record of a run.


def distances(start: dict[str, np.ndarray], end: dict[str, np.ndarray]) -> dict[str, float]:
    """Return Euclidean distances by layer and, under "", of the complete model, in float64."""
    squares = dict.fromkeys(LAYERS, 0.0)
    for name in start:
        squares[name.split(".")[0]] += np.square(end[name].astype(np.float64) - start[name].astype(np.float64)).sum()
    return {"": math.sqrt(sum(squares.values())), **{f"/{layer}": math.sqrt(s) for layer, s in squares.items()}}


def saved_weights(run: Trained) -> list[dict[str, np.ndarray]]:
    """Return the weights at the start and after each epoch."""
    return [run.weights("init"), *(run.weights(f"epoch{epoch:05d}") for epoch in range(1, EPOCHS + 1))]


@pytest.mark.parametrize("epoch", range(1, EPOCHS + 1))
def test_recorded_distances_equal_those_between_saved_weights(trained: Callable, epoch: int):
    run = trained(CHECKPOINTED)
    weights, row = saved_weights(run), run.history[epoch - 1]
    for measure, start in {"distance": weights[0], "epoch_distance": weights[epoch - 1]}.items():
        for layer, expected in distances(start, weights[epoch]).items():
            assert expected > 0
            assert row[f"{measure}{layer}"] == pytest.approx(expected, rel=1e-12), f"{measure}{layer}"


@pytest.mark.parametrize("epoch", range(1, EPOCHS + 1))
def test_recorded_validation_equals_that_of_saved_weights(trained: Callable, small_data: PreparedData, epoch: int):
    run = trained(CHECKPOINTED)
    weights = {name: torch.from_numpy(array).double() for name, array in saved_weights(run)[epoch].items()}
    outputs, row = logits(weights, images_of(small_data.validation)), run.history[epoch - 1]
    assert row["validation_loss"] == pytest.approx(
        losses(outputs, labels_of(small_data.validation)).mean().item(), abs=1e-6
    )
    correct = (outputs.numpy() > 0) == (labels_of(small_data.validation) == 1)
    assert row["validation_accuracy"] == correct.mean()


@pytest.mark.parametrize("epoch", [1, 2])
def test_recorded_noise_scale_equals_that_of_saved_weights(trained: Callable, small_data: PreparedData, epoch: int):
    run = trained(CHECKPOINTED)
    weights = {name: tensor.double() for name, tensor in as_leaves(saved_weights(run)[epoch]).items()}
    order = epoch_order(230, CHECKPOINTED.seed, epoch + 1)
    sizes, gradients = [], []
    for part in np.split(order, range(64, 230, 64)):  # the last one has 38
        loss = losses(logits(weights, images_of(small_data.train)[part]), labels_of(small_data.train)[part]).mean()
        gradients.append(np.concatenate([g.ravel() for g in torch.autograd.grad(loss, list(weights.values()))]))
        sizes.append(len(part))
    mean = np.average(gradients, axis=0, weights=sizes)
    trace = np.dot(sizes, np.square(gradients - mean).sum(axis=1)) / 3
    row = run.history[epoch - 1]
    assert row["gradient_norm"] == pytest.approx(np.linalg.norm(mean), rel=1e-5)
    assert row["noise_scale"] == pytest.approx(trace / np.sum(mean**2), rel=1e-4)


def test_noise_scale_is_recorded_after_powers_of_two(trained: Callable):
    run = trained(spec_of(learning_rate=1e-30, epochs=9))
    for column in ("gradient_norm", "noise_scale"):
        assert [row["epoch"] for row in run.history if not math.isnan(row[column])] == [1, 2, 4, 8], column


def test_measuring_the_noise_scale_changes_nothing_else(
    trained: Callable, fresh: Callable, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("batchscape.training.recorder.is_noise_scale_evaluation", lambda _: False)
    without = fresh(CHECKPOINTED)
    assert without.files == trained(CHECKPOINTED).files
    noise = {"gradient_norm": math.nan, "noise_scale": math.nan}
    expected = [{**row, **noise} for row in trained(CHECKPOINTED).history_without_times]
    assert repr(without.history_without_times) == repr(expected)


@pytest.mark.parametrize("spec", [CHECKPOINTED, RESTLESS], ids=["checkpointed", "restless"])
def test_best_epoch_is_the_first_with_the_best_validation_loss(spec: RunSpec, trained: Callable):
    run = trained(spec)
    summary, best = run.summary, 1 + int(np.argmin(run.column("validation_loss")))
    assert summary["best_epoch"] == best
    assert summary["best_validation_loss"] == min(run.column("validation_loss"))
    assert summary["validation_at_best"]["accuracy"] == run.history[best - 1]["validation_accuracy"]
    assert summary["min_train_loss"] == min(run.column("train_loss"))


def test_best_and_last_are_the_weights_after_those_epochs(trained: Callable):
    epochs = trained(RESTLESS).summary["epochs"]
    spec = spec_of(learning_rate=0.3, patience=2, epochs=60, checkpoints=list(range(1, epochs + 1)))
    run = trained(spec)
    best = run.summary["best_epoch"]
    assert 1 <= best < epochs
    assert run.bytes_of("best") == run.bytes_of(f"epoch{best:05d}")
    assert run.bytes_of("last") == run.bytes_of(f"epoch{epochs:05d}")
    assert run.bytes_of("best") != run.bytes_of("last")


def test_only_configured_checkpoints_are_saved(trained: Callable):
    run = trained(spec_of(checkpoints=[2]))
    assert {path.stem for path in (run.path / "weights").iterdir()} == {"init", "best", "last", "epoch00002"}
    assert run.bytes_of("epoch00002") == trained(spec_of(checkpoints=[2, 3])).bytes_of("epoch00002")


def test_checkpoints_change_nothing_else(trained: Callable):
    run, without = trained(spec_of(checkpoints=[2])), trained(spec_of())
    assert run.bytes_of("last") == without.bytes_of("last")
    assert repr(run.history_without_times) == repr(without.history_without_times)


def test_epoch_distance_is_at_most_the_sum_of_update_norms(trained: Callable):
    run = trained(CHECKPOINTED)
    assert (run.update_norms.shape, run.update_norms.dtype) == ((EPOCHS * 8,), np.float64)
    for epoch_distance, norms in zip(run.column("epoch_distance"), run.update_norms.reshape(EPOCHS, 8), strict=True):
        assert norms.max() < epoch_distance < norms.sum()


def test_epoch_distance_of_one_batch_is_its_update_norm(trained: Callable):
    run = trained(spec_of(batch_size=230))
    assert run.update_norms.tolist() == pytest.approx(run.column("epoch_distance"), rel=1e-6)


def test_training_loss_without_movement_is_that_of_the_weights(trained: Callable, small_data: PreparedData):
    run = trained(STILL)
    weights = {name: torch.from_numpy(array).double() for name, array in run.weights("init").items()}
    outputs = logits(weights, images_of(small_data.train))
    expected = losses(outputs, labels_of(small_data.train)).mean().item()
    assert run.column("train_loss") == pytest.approx([expected] * len(run.history), rel=1e-6)
    correct = (outputs.numpy() > 0) == (labels_of(small_data.train) == 1)
    assert run.column("train_accuracy") == [correct.mean()] * len(run.history)


def test_history_has_one_row_per_epoch(trained: Callable):
    run = trained(CHECKPOINTED)
    by_layer = [f"{measure}/{layer}" for measure in ("distance", "epoch_distance") for layer in LAYERS]
    losses_and_accuracies = [f"{part}_{value}" for part in ("train", "validation") for value in ("loss", "accuracy")]
    model_columns = ["distance", "epoch_distance", "gradient_norm", "noise_scale"]
    assert set(run.history[0]) == {
        "epoch",
        "step",
        "examples",
        "learning_rate",
        "clipped",
        *losses_and_accuracies,
        *TIMES,
        *model_columns,
        *by_layer,
    }
    assert run.column("epoch") == [1, 2, 3]
    assert run.column("step") == [8, 16, 24]
    assert run.column("examples") == [230, 460, 690]
    assert run.column("learning_rate") == [0.05] * EPOCHS
    assert all(row[time] > 0 for row in run.history for time in TIMES)


def test_history_has_the_learning_rate_of_the_last_step(trained: Callable):
    rates = trained(spec_of(warmup_epochs=2, momentum=0.9)).column("learning_rate")
    assert rates == pytest.approx([0.025, 0.05, 0.05], rel=1e-12)


def test_summary_describes_the_run(trained: Callable, small_data_file: Path):
    summary = trained(CHECKPOINTED).summary
    assert RunSpec.model_validate(summary["spec"]) == CHECKPOINTED
    assert summary["parameters"] == 3361
    assert summary["batches_per_epoch"] == 8
    assert summary["training_examples"] == 230
    assert summary["provenance"]["data_sha256"] == prepared_digest(small_data_file)
    assert summary["provenance"]["started"] <= summary["provenance"]["finished"]
    assert summary["environment"]["packages"]["torch"] == metadata.version("torch")
    assert summary["environment"]["device"] == "cpu"


def test_the_run_directory_finds_all_that_was_written(trained: Callable):
    run = trained(CHECKPOINTED)
    directory = RunDirectory(run.path)
    assert directory.summary() == run.summary
    assert directory.update_norms().tolist() == run.update_norms.tolist()
    for name in ("init", "best", "last", RunDirectory.checkpoint_name(2)):
        arrays = run.weights(name)
        in_order = [arrays[f"{layer}.{kind}"].ravel() for layer in LAYERS for kind in ("weight", "bias")]
        assert np.array_equal(directory.weights(name).vector, np.concatenate(in_order))
        assert directory.weights(name).layers.names == tuple(LAYERS)


# How a run ends.


def test_improving_run_ends_with_its_budget(trained: Callable):
    summary = trained(CHECKPOINTED).summary
    assert (summary["status"], summary["epochs"], summary["steps"]) == ("budget_spent", EPOCHS, 8 * EPOCHS)


def test_run_stops_when_patience_is_exhausted(trained: Callable):
    run = trained(RESTLESS)
    summary = run.summary
    assert summary["status"] == "converged"
    assert summary["epochs"] == len(run.history) < 60
    assert summary["epochs"] - summary["best_epoch"] == 2
    # It stopped as early as possible: before, no two epochs in a row were without improvement.
    best_so_far = np.minimum.accumulate(run.column("validation_loss"))
    improved = [1, *(1 + i for i in range(1, len(best_so_far)) if best_so_far[i] < best_so_far[i - 1])]
    assert max(np.diff(improved), default=1) <= 2


def test_equal_validation_loss_is_no_improvement(trained: Callable):
    run = trained(STILL)
    summary = run.summary
    assert (summary["status"], summary["best_epoch"], summary["epochs"]) == ("converged", 1, 3)
    assert len(set(run.column("validation_loss"))) == 1
    assert run.bytes_of("best") != run.bytes_of("last")  # the biases start at 0, so they do move


def test_run_that_diverges_at_once_is_complete_without_best(trained: Callable):
    run = trained(EXPLODING)
    summary = run.summary
    assert (summary["status"], summary["epochs"], summary["best_epoch"]) == ("diverged", 1, None)
    assert summary["best_validation_loss"] is None
    assert summary["validation_at_best"] == {}
    assert not math.isfinite(run.history[0]["validation_loss"])
    assert set(run.files) == {"weights/init.safetensors", "weights/last.safetensors", "update_norms.npy"}
    assert run.update_norms.shape == (8,)


def test_run_that_diverges_later_has_its_best_weights(trained: Callable):
    run = trained(spec_of(batch_size=230, learning_rate=1e8))
    summary = run.summary
    assert (summary["status"], summary["best_epoch"]) == ("diverged", 1)
    assert summary["epochs"] == len(run.history) == 2
    assert math.isfinite(summary["best_validation_loss"])
    assert run.bytes_of("best") != run.bytes_of("last")


def test_diverging_run_is_reproducible(trained: Callable, fresh: Callable):
    assert fresh(EXPLODING).equals(trained(EXPLODING))


def test_run_directory_has_no_other_files(trained: Callable):
    run = trained(CHECKPOINTED)
    assert {path.name for path in run.path.iterdir()} == {
        *("weights", "history.csv", "update_norms.npy", "run.json"),
        ".completed",
    }
    assert all(path.suffix == ".safetensors" for path in (run.path / "weights").iterdir())


# Invalid runs raise an error, and the files of an earlier run remain.


@pytest.fixture
def earlier_run(tmp_path: Path) -> Path:
    """A directory with a file of an earlier run."""
    path = tmp_path / "run"
    path.mkdir()
    (path / "run.json").write_text("{}")
    return path


def test_batch_larger_than_the_data_raises(small_data_file: Path, earlier_run: Path, refusal: Callable):
    message = refusal(train, spec_of(batch_size=231), small_data_file, earlier_run)
    assert message.startswith("grid.batch_sizes: 231 is more than the 230 training examples")
    assert (earlier_run / "run.json").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_missing_gpu_raises(small_data_file: Path, earlier_run: Path, refusal: Callable):
    message = refusal(train, spec_of(accelerator="gpu"), small_data_file, earlier_run)
    assert message.startswith("training.accelerator: ")
    assert (earlier_run / "run.json").exists()


def test_missing_data_raises(tmp_path: Path, earlier_run: Path, refusal: Callable):
    message = refusal(train, spec_of(), tmp_path / "none.safetensors", earlier_run)
    assert message.startswith(f"{tmp_path}/none.safetensors: ")
    assert (earlier_run / "run.json").exists()


def test_images_too_small_for_the_network_raise(
    small_data: PreparedData, tmp_path: Path, earlier_run: Path, refusal: Callable
):
    small = image_data(
        images_of(small_data.train)[:, :, :2, :2],
        labels_of(small_data.train),
        images_of(small_data.validation)[:, :, :2, :2],
        labels_of(small_data.validation),
        small_data.spec.classes,
    )
    write_prepared(tmp_path / "small", small)
    message = refusal(train, spec_of(), tmp_path / "small", earlier_run)
    assert message.startswith("model.channels: ")
    assert (earlier_run / "run.json").exists()


# A function after each evaluation, by which a caller may stop a run.


def test_function_after_each_evaluation_changes_no_bits(trained: Callable, small_data_file: Path, tmp_path: Path):
    calls = []
    run = train(CHECKPOINTED, small_data_file, tmp_path / "run", after_evaluation=lambda *call: calls.append(call))
    assert Trained(run).equals(trained(CHECKPOINTED))
    losses = RunDirectory(run).history(["validation_loss"])["validation_loss"].cummin().tolist()
    assert calls == [(1, losses[0]), (2, losses[1])]  # the third evaluation ends the run


def test_run_that_is_stopped_has_the_history_up_to_there(trained: Callable, small_data_file: Path, tmp_path: Path):
    path = train(CHECKPOINTED, small_data_file, tmp_path / "run", after_evaluation=lambda number, _: number == 2)
    stopped, complete = RunDirectory(path), RunDirectory(trained(CHECKPOINTED).path)
    columns = ["epoch", "train_loss", "validation_loss", "distance"]
    assert stopped.history(columns).equals(complete.history(columns)[:2])
    assert (stopped.summary()["status"], stopped.summary()["epochs"]) == ("stopped", 2)
    assert np.array_equal(stopped.weights("last").vector, complete.weights("epoch00002").vector)


def test_only_a_single_process_takes_a_function(small_data_file: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="single process"):
        train(CHECKPOINTED, small_data_file, tmp_path, Execution(devices=2), lambda *_: False)
