"""The analyses of the loss surface, over the table of tasks and on a linear regression in closed form."""

from itertools import product

import numpy as np
import pytest
import torch

from batchscape.analysis.gradient_alignment import measure_alignment
from batchscape.analysis.interpolation import interpolate
from batchscape.analysis.landscape import evaluate_on_plane
from batchscape.analysis.sharpness import measure_sharpness
from batchscape.config.interpolation import InterpolationConfig
from batchscape.config.sharpness import SharpnessConfig
from batchscape.curvature.loss_surface import LossSurface
from batchscape.io.weights import Weights
from tests.helpers.cases import CASES, CPU, LINEAR_REGRESSION, Case

ALL_CASES = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def parameters_of(case: Case, seed: int) -> np.ndarray:
    """Return the weights of a network as a vector, (p,)."""
    parameters = case.objective(seed).module.parameters()
    return torch.cat([parameter.detach().flatten() for parameter in parameters]).numpy()


def expected_loss(case: Case, weights: np.ndarray, count: int = 23, seed: int = 0) -> float:
    """Return the loss over a dataset at some weights by its definition."""
    module = case.objective().module
    torch.nn.utils.vector_to_parameters(torch.from_numpy(weights), module.parameters())
    return case.expected_mean(module, case.dataset(count, seed).batch(slice(None), CPU, torch.float64)).item()


@ALL_CASES
def test_interpolation(case: Case):
    surfaces = [LossSurface(case.objective(), case.dataset(*size), CPU, torch.float64) for size in ((23, 0), (9, 1))]
    first, second = parameters_of(case, 0), parameters_of(case, 1)
    rows = interpolate(
        *surfaces, *(Weights(vector, {}, {}) for vector in (first, second)), InterpolationConfig(points=5)
    )
    names = case.task().metric_names
    columns = [f"{side}_{name}" for side in ("train", "validation") for name in ("loss", *names)]
    assert set(columns) <= set(rows)
    for row in rows.to_dict("records"):
        weights = (1 - row["alpha"]) * first + row["alpha"] * second
        assert row["train_loss"] == pytest.approx(expected_loss(case, weights), rel=1e-11)
        assert row["validation_loss"] == pytest.approx(expected_loss(case, weights, 9, 1), rel=1e-11)


@ALL_CASES
def test_landscape(case: Case):
    surface = LossSurface(case.objective(), case.dataset(), CPU, torch.float64)
    center, *directions = (parameters_of(case, seed) for seed in range(3))
    points = np.array([(0.0, 0.0), (0.5, -0.25), (-1.0, 0.3)])
    rows = evaluate_on_plane(surface, center, np.stack(directions), points, re_estimate=False)
    expected = [expected_loss(case, center + x * directions[0] + y * directions[1]) for x, y in points]
    np.testing.assert_allclose(rows["loss"], expected, rtol=1e-11)
    assert {"x", "y", "loss", *case.task().metric_names} <= set(rows)


@ALL_CASES
def test_alignment(case: Case):
    data = case.dataset()
    surface = LossSurface(case.objective(), data, CPU, torch.float64)
    weights = parameters_of(case, 0)
    batch = np.array([3, 22, 0, 7, 11, 12, 1, 20])
    rows = measure_alignment(surface, weights, batch[None]).set_index("gradient_batch")
    module = case.objective().module
    parameters = list(module.parameters())
    gradients, shares = [], []
    for index in batch.tolist():
        example = data.batch(slice(index, index + 1), CPU, torch.float64)
        parts = torch.autograd.grad(case.expected_mean(module, example), parameters)
        gradients.append(torch.cat([part.flatten() for part in parts]).numpy())
        shares.append(case.expected_weights(example).sum().item())
    norms = np.linalg.norm(gradients, axis=1)
    assert rows["gradient_norm"][1] == pytest.approx(np.average(norms, weights=shares), rel=1e-6)
    mean = np.average(gradients, axis=0, weights=shares)
    assert rows["gradient_norm"][8] == pytest.approx(np.linalg.norm(mean), rel=1e-6)
    assert rows["alignment"][8] == pytest.approx(np.linalg.norm(mean) / np.average(norms, weights=shares), rel=1e-6)


@ALL_CASES
def test_largest_curvature_and_trace(case: Case):
    surface = LossSurface(case.objective(), case.dataset(), CPU, torch.float64)
    weights = parameters_of(case, 0)
    hessian = np.array([surface.hessian_vector_product(weights, column) for column in np.eye(len(weights))])
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-12)
    config = SharpnessConfig(trace_matvecs=3 * len(weights), random_starts=0, iterations=1)
    rows = measure_sharpness(surface, weights, config).set_index("measure")
    eigenvalues = np.linalg.eigvalsh(hessian)
    assert rows["value"]["hessian_eigenvalue"] == pytest.approx(eigenvalues[-1], rel=2e-3)
    assert rows["value"]["hessian_trace"] == pytest.approx(eigenvalues.sum(), rel=1e-6)


def test_sharpness_of_a_linear_regression_in_closed_form():
    """The loss is quadratic, with the Hessian 2XᵀX/n; its maximum in a box is in a corner."""
    data = LINEAR_REGRESSION.dataset(40)
    surface = LossSurface(LINEAR_REGRESSION.objective(), data, CPU, torch.float64)
    design, targets = (data.arrays[name].double().numpy() for name in ("inputs", "targets"))
    weights = np.array([0.4, -1.0, 0.2, 2.0])
    config = SharpnessConfig(random_starts=20, iterations=50, epsilons=(0.1,), adaptive_radii=(0.2,))
    rows = measure_sharpness(surface, weights, config).set_index("measure")["value"]
    hessian = 2 * design.T @ design / 40
    assert rows["hessian_eigenvalue"] == pytest.approx(np.linalg.eigvalsh(hessian)[-1], rel=1e-3)
    assert rows["hessian_trace"] == pytest.approx(np.trace(hessian), rel=1e-10)

    def loss(point: np.ndarray) -> float:
        return float(np.mean((design @ point - targets) ** 2))

    def maximum(half_widths: np.ndarray) -> float:
        return max(loss(weights + np.array(signs) * half_widths) for signs in product([-1, 1], repeat=4))

    largest = maximum(0.1 * (abs(weights) + 1))
    expected = 100 * (largest - loss(weights)) / (1 + loss(weights))
    assert rows["keskar"] == pytest.approx(expected, rel=1e-9)
    assert rows["adaptive"] == pytest.approx(maximum(0.2 * abs(weights)) - loss(weights), rel=1e-9)
