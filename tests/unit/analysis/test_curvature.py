"""Curvature during training: closed forms on a quadratic, the edge of stability, and a run with Adam."""

import logging
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.linalg import eigh
from torch import nn

from batchscape.analysis.curvature import (
    adam_preconditioner,
    analyze,
    batch_sharpness,
    draw_batches,
    measure_curvature,
    preconditioned_edge,
    preconditioned_eigenvalue,
    stability_edge,
)
from batchscape.config.curvature import CurvatureConfig
from batchscape.config.optimizer import OptimizerConfig
from batchscape.config.run import RunSpec
from batchscape.config.task import RegressionConfig
from batchscape.curvature.loss_surface import LossSurface
from batchscape.data.dataset import Dataset
from batchscape.data.prepared import PreparedData, write_prepared
from batchscape.data.spec import DataSpec
from batchscape.io.run_directory import RunDirectory
from batchscape.io.weights import Layers
from batchscape.tasks.objective import SupervisedObjective
from batchscape.tasks.task import build_task
from batchscape.training.plan import StepPlan
from batchscape.training.sampler import epoch_order
from batchscape.training.train import train
from tests.helpers.objectives import CPU
from tests.helpers.quadratic import noise_data, noise_dataset, quadratic_objective, quadratic_spec
from tests.helpers.surfaces import MATRIX, Quadratic, parameter_vector

EIGENVALUES, START = (5.0, 1.0, 0.2), (0.3, -1.0, 2.0)
ONE_LAYER = Layers(("weights",), (0,))


def noisy_surface(noise: np.ndarray) -> LossSurface:
    data = noise_dataset(noise)
    return LossSurface(quadratic_objective(EIGENVALUES, START, data), data, CPU, torch.float64)


def test_curvature_of_a_noisy_quadratic_has_its_closed_form():
    """With g_B = Hθ + mean ξ, the curvature of a batch is g_BᵀHg_B/‖g_B‖², whatever the Hessian of others is."""
    noise = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32).astype(np.float64)
    surface, weights, hessian = noisy_surface(noise), np.array(START), np.diag(EIGENVALUES)
    pairs = np.array(list(combinations(range(7), 2)))
    gradients = weights @ hessian + noise[pairs].mean(1)
    expected = np.einsum("bi,ij,bj->b", gradients, hessian, gradients) / (gradients**2).sum(1)
    assert batch_sharpness(surface, weights, pairs) == pytest.approx(expected, rel=1e-12)
    found = measure_curvature(surface, weights, pairs, ONE_LAYER)
    assert found["hessian_eigenvalue"] == pytest.approx(5, rel=1e-3)
    assert found["batch_sharpness"] == pytest.approx(expected.mean(), rel=1e-12)
    assert found["batch_sharpness_se"] == pytest.approx(expected.std(ddof=1) / np.sqrt(21), rel=1e-12)
    mean_gradient = weights @ hessian + noise.mean(0)
    assert found["gradient_norm"] == found["gradient_norm/weights"] == pytest.approx(np.linalg.norm(mean_gradient))
    assert found["weight_norm"] == pytest.approx(np.linalg.norm(START))
    assert np.isnan(found["preconditioned_eigenvalue"])
    # Drawn batches estimate the mean over all.
    drawn = batch_sharpness(surface, weights, draw_batches(7, 2, 400, seed=1))
    assert drawn.mean() == pytest.approx(expected.mean(), abs=4 * expected.std() / 20)


def test_a_batch_of_all_examples_has_the_curvature_along_the_full_gradient():
    noise = np.random.default_rng(1).normal(size=(5, 3))
    batches = draw_batches(5, 8, 32, seed=0)
    assert batches.tolist() == [[0, 1, 2, 3, 4]]
    found = measure_curvature(noisy_surface(noise), np.array(START), batches, ONE_LAYER)
    gradient = np.array(START) * EIGENVALUES + noise.astype(np.float32).mean(0)
    assert found["batch_sharpness"] == pytest.approx(gradient**2 @ EIGENVALUES / (gradient @ gradient), rel=1e-6)
    assert np.isnan(found["batch_sharpness_se"])


def test_batches_are_without_replacement_and_depend_on_the_seed():
    batches = draw_batches(50, 20, 30, seed=3)
    assert batches.shape == (30, 20)
    assert all(len(set(batch)) == 20 for batch in batches.tolist())
    assert set(batches.ravel()) == set(range(50))
    assert np.array_equal(batches, draw_batches(50, 20, 30, seed=3))
    assert not np.array_equal(batches, draw_batches(50, 20, 30, seed=4))


def test_preconditioned_eigenvalue_is_that_of_the_generalized_problem():
    preconditioner = np.array([8.0, 0.5, 1.0])
    surface: Any = Quadratic(MATRIX, np.zeros(3))
    expected = eigh(MATRIX, np.diag(preconditioner), eigvals_only=True)[-1]
    assert preconditioned_eigenvalue(surface, np.zeros(3), preconditioner, seed=0) == pytest.approx(expected, rel=1e-3)
    diagonal: Any = Quadratic(np.diag([4.0, 3.0, 2.0]), np.zeros(3))
    assert preconditioned_eigenvalue(diagonal, np.zeros(3), preconditioner, seed=0) == pytest.approx(3 / 0.5, rel=1e-3)


def test_parameters_without_a_gradient_have_no_part_in_the_preconditioned_eigenvalue():
    """Adam does not move them, as if they were frozen; divided by its ε, their curvature would be the largest."""
    moments, config = np.array([4.0, 0.0, 1.0], np.float32), OptimizerConfig(name="Adam")
    preconditioner = adam_preconditioner(config, moments, 10_000)
    assert preconditioner == pytest.approx([2.0, np.inf, 1.0], rel=1e-4)
    diagonal: Any = Quadratic(np.diag([4.0, 3.0, 1.0]), np.zeros(3))
    assert preconditioned_eigenvalue(diagonal, np.zeros(3), preconditioner, seed=0) == pytest.approx(4 / 2, rel=1e-3)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"momentum": 0.9},
        {"momentum": 0.5, "nesterov": True},
        {"momentum": 0.8, "dampening": 0.5},
        {"dampening": 0.5},
        {"momentum": 0.9, "weight_decay": 0.3},
    ],
)
def test_torch_is_stable_below_the_edge_and_not_above(arguments: dict[str, Any]):
    rate = 0.1
    edge = stability_edge(OptimizerConfig(name="SGD", arguments=arguments), rate)
    grows = []
    for share in (0.95, 1.05):
        point = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
        optimizer = torch.optim.SGD([point], lr=rate, **arguments)
        for _ in range(300):
            point.grad = share * edge / rate * point.detach()
            optimizer.step()
        grows.append(bool(point.detach().abs() > 1))
    assert grows == [False, True]


def test_adam_is_stable_below_its_edge_and_not_above():
    config, rate, second_moment = OptimizerConfig(name="Adam", arguments={"betas": [0.8, 0.99]}), 0.1, 4.0
    grows = []
    preconditioner = adam_preconditioner(config, np.array([second_moment]), 10_000)[0]
    for share in (0.95, 1.05):
        point = torch.nn.Parameter(torch.tensor([0.0], dtype=torch.float64))
        optimizer = torch.optim.Adam([point], lr=rate, betas=(0.8, 0.99))
        point.grad = torch.zeros_like(point)
        optimizer.step()
        point.data.fill_(1e-9)
        for _ in range(300):
            # The gradient is so small that the second moment is that of other steps.
            optimizer.state[point]["exp_avg_sq"].fill_(second_moment)
            optimizer.state[point]["step"].fill_(10_000)
            point.grad = share * preconditioned_edge(config) / rate * preconditioner * point.detach()
            optimizer.step()
        grows.append(bool(point.detach().abs() > 1e-9))
    assert grows == [False, True]


def test_edges_of_other_optimizers_are_not_known():
    assert np.isnan(stability_edge(OptimizerConfig(name="Adam"), 0.1))
    assert np.isnan(preconditioned_edge(OptimizerConfig(name="SGD")))
    assert np.isnan(preconditioned_edge(OptimizerConfig(name="Adam", arguments={"amsgrad": True})))
    assert np.isnan(preconditioned_edge(OptimizerConfig(name="own:Adam")))


def test_gradient_descent_on_a_network_settles_at_the_edge_of_stability():
    """Cohen et al. 2021: λ_max rises to 2/η and remains there, while the loss falls."""
    inputs = np.linspace(-1, 1, 20, dtype=np.float32)[:, None]
    arrays = {"inputs": inputs, "targets": np.sin(4 * inputs[:, 0])}
    spec = DataSpec("numbers", (1,), "numbers")
    data = Dataset.from_numpy(spec, arrays)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(1, 20), nn.Tanh(), nn.Linear(20, 1)).double()
    objective = SupervisedObjective(network, build_task(RegressionConfig(name="regression"), spec))
    surface = LossSurface(objective, data, CPU, torch.float64)
    layers = Layers.of({name: each.numel() for name, each in network.named_parameters()})
    batch, rate = data.batch(slice(None), CPU, torch.float64), 0.1
    optimizer = torch.optim.SGD(network.parameters(), lr=rate)
    found = []
    for step in range(4001):
        if step in (0, 3000, 3500, 4000):
            found.append(measure_curvature(surface, parameter_vector(network), np.arange(20)[None], layers))
        optimizer.zero_grad()
        objective(batch).loss.backward()
        optimizer.step()
    products = [rate * each["hessian_eigenvalue"] for each in found]
    assert products[0] < 1.5
    assert products[1:] == pytest.approx([2] * 3, rel=0.05)
    assert found[-1]["loss"] < found[1]["loss"] < found[0]["loss"]


def second_moments_by_hand(spec: RunSpec, data: PreparedData) -> dict[int, np.ndarray]:
    """Return Adam's second moments by step, from the gradients Hθ + mean ξ of the batches."""
    noise = data.train.arrays["inputs"].double()
    plan = StepPlan(spec, len(noise))
    weights = nn.Parameter(torch.tensor(START, dtype=torch.float64))
    optimizer = torch.optim.Adam([weights], betas=(0.5, 0.9), eps=0.01)
    moments = {}
    for part in plan.parts(0, plan.total):
        order = epoch_order(len(noise), spec.seed, part.epoch)[part.examples]
        for batch in torch.from_numpy(order).split(part.sizes):
            optimizer.param_groups[0]["lr"] = spec.learning_rate * plan.learning_rate_factor(len(moments) + 1)
            weights.grad = torch.tensor(EIGENVALUES, dtype=torch.float64) * weights.detach() + noise[batch].mean(0)
            optimizer.step()
            moments[len(moments) + 1] = optimizer.state[weights]["exp_avg_sq"].numpy().copy()
    return moments


def test_rows_of_a_run_with_adam(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    noise = np.random.default_rng(2).normal(size=(24, 3))
    write_prepared(tmp_path / "data", noise_data(noise - noise.mean(0)))
    spec = quadratic_spec(
        EIGENVALUES,
        START,
        training={"budget": {"epochs": 4}, "patience": None, "checkpoints": [2, 3], "accelerator": "cpu"},
        optimizer={"name": "Adam", "arguments": {"betas": [0.5, 0.9], "eps": 0.01}},
        schedule={"decay": "linear"},
        stages=[{"start": {"epochs": 3}, "batch_size_factor": 2, "learning_rate_factor": 2.0}],
    )
    run = RunDirectory(train(spec, tmp_path / "data", tmp_path / "run"))
    data = noise_data(noise - noise.mean(0))
    with caplog.at_level(logging.INFO):
        rows = analyze(run, data, CurvatureConfig(batches=3)).set_index("checkpoint")
    assert list(rows.index) == ["init", "epoch00002", "epoch00003", "best", "last"]
    history = run.history(["epoch", "step", "learning_rate"]).set_index("epoch")
    for epoch, name in {2: "epoch00002", 3: "epoch00003", 4: "last"}.items():
        assert rows.loc[name, "step_learning_rate"] == history.loc[epoch, "learning_rate"]
        assert rows.loc[name, "step"] == history.loc[epoch, "step"]
    assert rows.loc["init", ["epoch", "step", "step_learning_rate"]].tolist() == [0, 0, 0.1]
    assert rows.drop("best")["step_batch_size"].tolist() == [8, 8, 8, 16]
    assert rows["hessian_eigenvalue"].tolist() == pytest.approx([5] * 5, rel=1e-3)
    assert rows["eigenvalue_times_rate"].tolist() == pytest.approx(list(5 * rows["step_learning_rate"]), rel=1e-3)
    assert np.isnan(rows.loc["init", "preconditioned_eigenvalue"])
    # Of the diagonal problem it is the largest h_i/p_i.
    recomputed = second_moments_by_hand(spec, data)
    for name, checkpoint in {"epoch00002": 2, "epoch00003": 3, "last": "last"}.items():
        moments = run.second_moments(checkpoint)
        assert moments == pytest.approx(recomputed[rows.loc[name, "step"]], rel=1e-9)
        preconditioner = np.sqrt(moments / (1 - 0.9 ** rows.loc[name, "step"])) + 0.01
        expected = (np.array(EIGENVALUES) / preconditioner).max()
        assert rows.loc[name, "preconditioned_eigenvalue"] == pytest.approx(expected, rel=1e-3)
        assert rows.loc[name, "preconditioned_edge"] == pytest.approx(2 * 1.5 / 0.5)
    assert rows.loc["best", "step"] == rows.loc["last", "step"]
    assert "4 checkpoints: about 80 Hessian-vector products over 24 examples" in caplog.text
