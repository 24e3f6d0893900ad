"""The loss surface, over the table of tasks, compared with derivatives of the loss by its definition."""

import math

import numpy as np
import pytest
import torch
from torch.func import functional_call

from batchscape.curvature.loss_surface import LossSurface
from tests.helpers.cases import CASES, CPU, LINEAR_REGRESSION, Case

ALL_CASES = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def expected_function(case: Case, rows: slice | torch.Tensor = slice(None)):
    """Return the mean loss over some rows of the dataset as a function of all parameters, by its definition."""
    module, batch = case.objective().module, case.dataset().batch(rows, CPU, torch.float64)
    names, parameters = zip(*module.named_parameters(), strict=True)
    sizes = [parameter.numel() for parameter in parameters]

    def loss(vector: torch.Tensor) -> torch.Tensor:
        parts = [p.reshape(q.shape) for p, q in zip(vector.split(sizes), parameters, strict=True)]
        values = dict(zip(names, parts, strict=True))
        return case.expected_mean(lambda inputs: functional_call(module, values, (inputs,)), batch)

    return loss, torch.cat([parameter.detach().flatten() for parameter in parameters])


@ALL_CASES
@pytest.mark.parametrize("chunk", [3, 23])
def test_value_gradient_and_hessian_product(case: Case, chunk: int):
    loss, weights = expected_function(case)
    surface = LossSurface(case.objective(), case.dataset(), CPU, torch.float64, chunk)
    point = weights + 0.3 * torch.randn(len(weights), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert surface.value(point.numpy()).loss == pytest.approx(loss(point).item(), rel=1e-12)
    found_loss, found = surface.gradient(point.numpy())
    assert found_loss == pytest.approx(loss(point).item(), rel=1e-12)
    expected = torch.autograd.functional.jacobian(loss, point).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-13)
    vector = np.random.default_rng(0).normal(size=len(weights))
    expected = torch.autograd.functional.hvp(loss, point, torch.from_numpy(vector))[1].numpy()
    product = surface.hessian_vector_product(point.numpy(), vector)
    np.testing.assert_allclose(product, expected, rtol=1e-9, atol=1e-12)
    assert np.linalg.norm(product) > 0.01


@ALL_CASES
def test_gradient_and_hessian_product_of_a_batch(case: Case):
    indices = np.array([3, 22, 0, 7, 11])
    loss, point = expected_function(case, torch.from_numpy(indices))
    surface = LossSurface(case.objective(), case.dataset(), CPU, torch.float64, chunk=2)
    found_loss, found = surface.gradient(point.numpy(), indices)
    assert found_loss == pytest.approx(loss(point).item(), rel=1e-12)
    expected = torch.autograd.functional.jacobian(loss, point).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-13)
    vector = np.random.default_rng(0).normal(size=len(point))
    expected = torch.autograd.functional.hvp(loss, point, torch.from_numpy(vector))[1].numpy()
    product = surface.hessian_vector_product(point.numpy(), vector, indices)
    np.testing.assert_allclose(product, expected, rtol=1e-9, atol=1e-12)
    # A batch leaves the caches of all examples as they are.
    assert surface.gradient(point.numpy())[0] == pytest.approx(expected_function(case)[0](point).item(), rel=1e-12)


@ALL_CASES
def test_gradients_of_examples_have_the_gradient_as_weighted_mean(case: Case):
    objective, data = case.objective(), case.dataset()
    _, weights = expected_function(case)
    surface = LossSurface(objective, data, CPU, torch.float64)
    each = surface.example_gradients(weights.numpy(), np.arange(len(data)))
    shares = case.expected_weights(data.batch(slice(None), CPU)).reshape(len(data), -1).sum(1).numpy()
    expected = surface.gradient(weights.numpy())[1]
    np.testing.assert_allclose(np.average(each, axis=0, weights=shares), expected, rtol=1e-6, atol=1e-9)


@ALL_CASES
def test_metrics_are_those_of_the_task(case: Case):
    surface = LossSurface(case.objective(), case.dataset(), CPU, torch.float64)
    _, weights = expected_function(case)
    assert tuple(surface.value(weights.numpy()).metrics) == surface.metrics == case.task().metric_names


def regression() -> tuple[LossSurface, np.ndarray, np.ndarray]:
    """Return the surface of a linear regression, with its design matrix and targets."""
    data = LINEAR_REGRESSION.dataset(40)
    surface = LossSurface(LINEAR_REGRESSION.objective(), data, CPU, torch.float64, chunk=7)
    design, targets = (data.arrays[name].double().numpy() for name in ("inputs", "targets"))
    return surface, design, targets


def test_linear_regression_has_its_loss_gradient_and_hessian_in_closed_form():
    surface, design, targets = regression()
    weights = np.array([1.0, -2.0, 0.5, 3.0])
    residuals = design @ weights - targets
    measured = surface.value(weights)
    assert measured.loss == pytest.approx(np.mean(residuals**2), rel=1e-12)
    assert measured.metrics["rmse"] == pytest.approx(math.sqrt(np.mean(residuals**2)), rel=1e-12)
    assert measured.metrics["mae"] == pytest.approx(np.mean(abs(residuals)), rel=1e-12)
    np.testing.assert_allclose(surface.gradient(weights)[1], 2 * design.T @ residuals / 40, rtol=1e-12)
    products = [surface.hessian_vector_product(weights, column) for column in np.eye(4)]
    np.testing.assert_allclose(products, 2 * design.T @ design / 40, rtol=1e-12, atol=1e-14)
    least_squares = np.linalg.lstsq(design, targets, rcond=None)[0]
    np.testing.assert_allclose(surface.gradient(least_squares)[1], 0, atol=1e-12)
