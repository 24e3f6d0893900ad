"""Training, over the table of tasks: the steps are those of a plain loop over the loss by its definition."""

import copy
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from batchscape.config.run import RunSpec
from batchscape.data.dataset import Batch
from batchscape.data.prepared import PreparedData, write_prepared
from batchscape.io.run_directory import RunDirectory
from batchscape.models.build import build_network
from batchscape.tasks.objective import dataset_weights
from batchscape.training import module, recorder
from batchscape.training.execution import Execution
from batchscape.training.micro_batches import backward
from batchscape.training.noise_scale import estimate_noise_scale
from batchscape.training.sampler import epoch_order
from batchscape.training.train import train
from tests.helpers.cases import CASES, CPU, LINEAR_REGRESSION, Case

ROOT = Path(__file__).parents[3]
ALL_CASES = pytest.mark.parametrize("name", CASES)
EPOCHS, RATE, MOMENTUM, DECAY = 3, 0.2, 0.9, 0.01


def gradient(case: Case, network: torch.nn.Module, batch: Batch) -> np.ndarray:
    """Return the gradient of the mean loss of a batch by its definition, (p,)."""
    parts = torch.autograd.grad(case.expected_mean(network, batch), list(network.parameters()))
    return torch.cat([part.flatten() for part in parts]).numpy()


@ALL_CASES
@pytest.mark.parametrize("sizes", [(23,), (16, 7), (1, 2, 20), (1,) * 23])
def test_micro_batches_have_the_gradient_of_the_global_batch(name: str, sizes: tuple[int, ...]):
    case = CASES[name]
    objective, batch = case.objective(), case.dataset().batch(slice(None), CPU)
    weights = objective.example_weights(batch)
    backward(objective, batch.split(sizes), len(batch) if weights is None else weights.sum())
    found = torch.cat([parameter.grad.flatten() for parameter in objective.module.parameters()]).numpy()
    np.testing.assert_allclose(found, gradient(case, objective.module, batch), rtol=1e-12, atol=1e-13)


@ALL_CASES
def test_shards_of_several_processes_have_the_gradient_of_the_global_batch(name: str):
    """Each process divides by the weight of the global batch, and the gradients are summed."""
    case = CASES[name]
    objective, data = case.objective(), case.dataset()
    all_weights = dataset_weights(objective, data, CPU)
    total_weight = len(data) if all_weights is None else all_weights.sum()
    for shard in data.batch(slice(None), CPU).split([9, 14]):
        backward(objective, shard.split(4), total_weight)
    found = torch.cat([parameter.grad.flatten() for parameter in objective.module.parameters()]).numpy()
    expected = gradient(case, objective.module, data.batch(slice(None), CPU))
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-12)


@pytest.fixture(autouse=True)
def import_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the processes of a training import the table of tasks."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])))
    monkeypatch.setattr(recorder, "CHECKPOINT_INTERVAL", 1e9)
    return


def data_of(case: Case) -> PreparedData:
    return PreparedData(case.spec, case.dataset(23, 0), case.dataset(10, 1), case.dataset(5, 2))


def spec_of(name: str, case: Case, batch_size: int = 7) -> RunSpec:
    return RunSpec.model_validate(
        {
            "batch_size": batch_size,
            "learning_rate": RATE,
            "seed": 3,
            "model": {"name": "tests.helpers.cases:network", "arguments": {"case": name}},
            "task": case.config.model_dump(),
            "training": {
                "budget": {"epochs": EPOCHS}, "accelerator": "cpu",
            },
            "optimizer": {"arguments": {"momentum": MOMENTUM, "weight_decay": DECAY}},
        }
    )  # fmt: skip


def train_plainly(case: Case, network: torch.nn.Module, spec: RunSpec) -> list[dict[str, float]]:
    """Train a network in place by a loop, and return its losses, and metrics that follow from them, by epoch."""
    data = data_of(case)
    parameters = list(network.parameters())
    velocities: list[Any] = [0.0] * len(parameters)
    rows = []
    for epoch in range(1, EPOCHS + 1):
        order = torch.from_numpy(epoch_order(len(data.train), spec.seed, epoch))
        summed = total_weight = 0.0
        for indices in order.split(spec.batch_size):
            batch = data.train.batch(indices, CPU)
            loss = case.expected_mean(network, batch)
            weight = case.expected_weights(batch).sum().item()
            summed, total_weight = summed + loss.item() * weight, total_weight + weight
            gradients = torch.autograd.grad(loss, parameters)
            with torch.no_grad():
                for index, (parameter, part) in enumerate(zip(parameters, gradients, strict=True)):
                    velocities[index] = MOMENTUM * velocities[index] + part + DECAY * parameter
                    parameter -= RATE * velocities[index]
        validation = case.expected_mean(network, data.validation.batch(slice(None), CPU)).item()
        rows.append({"train_loss": summed / total_weight, "validation_loss": validation})
    return rows


def write_parameters(network: torch.nn.Module, vector: np.ndarray) -> None:
    parameters = list(network.parameters())
    torch.nn.utils.vector_to_parameters(torch.from_numpy(vector).to(parameters[0]), parameters)


@ALL_CASES
def test_run_equals_a_plain_loop(name: str, tmp_path: Path):
    case = CASES[name]
    spec, path = spec_of(name, case), tmp_path / "prepared.safetensors"
    write_prepared(path, data_of(case))
    run = RunDirectory(train(spec, path, tmp_path / "run"))
    network = build_network(spec.model, case.spec, case.task().num_outputs, spec.seed)
    rows = train_plainly(case, network, spec)
    expected = torch.cat([parameter.detach().flatten() for parameter in network.parameters()]).numpy()
    np.testing.assert_allclose(run.weights("last").vector, expected, rtol=1e-6, atol=1e-7)
    history = pd.read_csv(run.history_file)
    for column in ("train_loss", "validation_loss"):
        np.testing.assert_allclose(history[column], [row[column] for row in rows], rtol=1e-7, err_msg=column)
    for metric in case.task().metric_names:
        assert np.isfinite(history[f"train_{metric}"]).all() or metric == "r2"
        assert f"validation_{metric}" in history
    write_parameters(network, run.weights("best").vector)
    tested = case.expected_mean(network, data_of(case).test.batch(slice(None), CPU)).item()
    assert run.summary()["test_at_best"]["loss"] == pytest.approx(tested, rel=1e-7)
    if "perplexity" in case.task().metric_names:
        np.testing.assert_allclose(history["train_perplexity"], np.exp(history["train_loss"]), rtol=1e-12)


def test_augmentation_of_examples_that_are_no_images_raises(tmp_path: Path, refusal: Callable):
    case, path = CASES["regression"], tmp_path / "prepared.safetensors"
    write_prepared(path, data_of(case))
    spec = spec_of("regression", case)
    spec = spec.model_copy(update={"training": spec.training.model_copy(update={"augment_flip": True})})
    message = refusal(train, spec, path, tmp_path / "run")
    assert message == "training.augment_flip: is for images, and this data has numbers; remove the key"


@pytest.mark.parametrize(
    ("name", "processes"),
    [("language model with padding", (2, 3)), ("class weights and weighted examples", (3,)), ("own loss", (2,))],
)
def test_any_number_of_processes_trains_the_same_run(name: str, processes: tuple[int, ...], tmp_path: Path):
    case = CASES[name]
    spec, path = spec_of(name, case, batch_size=11), tmp_path / "prepared.safetensors"  # 11 + 11 + 1
    write_prepared(path, data_of(case))
    alone, *shared = (
        RunDirectory(train(spec, path, tmp_path / f"of{devices}", Execution(devices=devices)))
        for devices in (1, *processes)
    )
    history = pd.read_csv(alone.history_file)
    columns = [column for column in history if "seconds" not in column]
    for run in shared:
        np.testing.assert_allclose(run.weights("last").vector, alone.weights("last").vector, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(run.update_norms(), alone.update_norms(), rtol=1e-10)
        assert run.summary()["test_at_best"] == pytest.approx(alone.summary()["test_at_best"], rel=1e-9)
        np.testing.assert_allclose(pd.read_csv(run.history_file)[columns], history[columns], rtol=1e-9, atol=1e-12)


@ALL_CASES
def test_micro_batches_train_the_same_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    case = CASES[name]
    spec, path = spec_of(name, case), tmp_path / "prepared.safetensors"
    write_prepared(path, data_of(case))
    one = RunDirectory(train(spec, path, tmp_path / "one"))
    monkeypatch.setattr(module, "max_micro_batch_size", lambda *_: 2)
    split = RunDirectory(train(spec, path, tmp_path / "split"))
    assert split.summary()["environment"]["micro_batch"] == 2
    np.testing.assert_allclose(split.weights("last").vector, one.weights("last").vector, rtol=1e-12, atol=1e-13)
    histories = [pd.read_csv(run.history_file) for run in (one, split)]
    columns = [column for column in histories[0] if "seconds" not in column]
    np.testing.assert_allclose(histories[1][columns], histories[0][columns], rtol=1e-9, atol=1e-12)


def weighted_covariance_trace(case: Case, count: int) -> tuple[float, float]:
    """Return ‖G‖ and tr(Σ)/‖G‖² from the gradients of single examples."""
    objective, data = case.objective(), case.dataset(count)
    each = [data.batch(slice(index, index + 1), CPU) for index in range(count)]
    gradients = np.array([gradient(case, objective.module, batch) for batch in each])
    shares = np.array([case.expected_weights(batch).sum().item() for batch in each])
    shares /= shares.mean()
    mean = np.average(gradients, axis=0, weights=shares)
    trace = (shares * ((gradients - mean) ** 2).sum(1)).sum() / (count - 1)
    return float(np.linalg.norm(mean)), float(trace / (mean @ mean))


@ALL_CASES
def test_noise_scale_of_batches_of_one_is_that_of_the_weighted_covariance(name: str):
    case = CASES[name]
    objective, data = case.objective(), case.dataset(13)
    weights = dataset_weights(objective, data, CPU)
    found = estimate_noise_scale(objective, data, torch.randperm(13), CPU, weights, batch_size=1)
    assert found == pytest.approx(weighted_covariance_trace(case, 13), rel=1e-6)


@ALL_CASES
def test_noise_scale_does_not_depend_on_chunks(name: str):
    case = CASES[name]
    objective, data = case.objective(), case.dataset()
    weights, order = dataset_weights(objective, data, CPU), torch.randperm(23)
    found = [
        estimate_noise_scale(objective, data, order, CPU, weights, batch_size=6, chunk=chunk) for chunk in (1, 4, 6)
    ]
    assert found[0] == pytest.approx(found[2], rel=1e-6)
    assert found[1] == pytest.approx(found[2], rel=1e-6)


def test_noise_scale_of_a_linear_regression_in_closed_form():
    """The gradient of an example is 2(xᵀθ − y)x."""
    objective, data = LINEAR_REGRESSION.objective(), LINEAR_REGRESSION.dataset(30)
    design, targets = (data.arrays[name].double().numpy() for name in ("inputs", "targets"))
    weights = objective.module.weight.detach().numpy()[0]
    gradients = 2 * (design @ weights - targets)[:, None] * design
    mean = 2 * design.T @ (design @ weights - targets) / 30
    expected = np.linalg.norm(mean), np.trace(np.cov(gradients.T)) / (mean @ mean)
    found = estimate_noise_scale(objective, data, torch.randperm(30), CPU, batch_size=1)
    assert found == pytest.approx(expected, rel=1e-9)


def test_weights_of_examples_are_repetitions():
    """An example of weight 2 counts as two equal examples: for loss, gradient and metrics."""
    case = CASES["regression of several numbers, weighted"]
    objective, data = case.objective(), case.dataset(6)
    repeated = copy.copy(data)
    repeated.arrays = {name: array.repeat_interleave(2, 0) for name, array in data.arrays.items()}
    for weights, rows in ((torch.tensor([2.0, 1, 1, 1, 1, 1]), torch.tensor([0, 1, 2, 4, 6, 8, 10])),):
        data.arrays["weights"][:] = weights
        repeated.arrays["weights"][:] = 1
        batch, expected = data.batch(slice(None), CPU), repeated.batch(rows, CPU)
        assert objective(batch).loss.item() == pytest.approx(objective(expected).loss.item(), rel=1e-12)
