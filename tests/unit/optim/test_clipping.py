"""Clipping of gradients, compared with torch."""

import math

import pytest
import torch

from batchscape.optim.clipping import clip_gradients


def parameters_with(*gradients: torch.Tensor | None) -> list[torch.Tensor]:
    parameters = []
    for gradient in gradients:
        parameter = torch.zeros(gradient.shape if gradient is not None else 3, requires_grad=True)
        parameter.grad = None if gradient is None else gradient.clone()
        parameters.append(parameter)
    return parameters


@pytest.mark.parametrize("max_norm", [1e-3, 0.5, 1.0, 4.9, 5.0, 5.1, 1e6])
def test_gradients_are_those_of_torch(max_norm: float):
    gradients = torch.tensor([[3.0, 0.0]]), None, torch.tensor([0.0, 4.0])
    parameters, reference = parameters_with(*gradients), parameters_with(*gradients)
    exceeded = clip_gradients(parameters, max_norm)
    torch.nn.utils.clip_grad_norm_(reference, max_norm)
    for parameter, expected in zip(parameters, reference, strict=True):
        assert parameter.grad is expected.grad is None or torch.equal(parameter.grad, expected.grad)
    assert exceeded.dtype == torch.bool
    assert exceeded.shape == ()
    assert exceeded.item() == (max_norm < 5)


def test_clipped_gradient_has_the_norm_and_the_direction():
    gradient = torch.randn(100, generator=torch.Generator().manual_seed(0))
    (parameter,) = parameters_with(gradient)
    clip_gradients([parameter], 0.1)
    assert parameter.grad.norm().item() == pytest.approx(0.1, rel=1e-5)
    assert torch.cosine_similarity(parameter.grad, gradient, dim=0).item() == pytest.approx(1)


def test_small_gradients_keep_all_bits():
    gradient = torch.randn(100, generator=torch.Generator().manual_seed(0))
    (parameter,) = parameters_with(gradient)
    assert not clip_gradients([parameter], 1000.0)
    assert torch.equal(parameter.grad, gradient)


@pytest.mark.parametrize("values", [[1.0, math.inf], [1.0, math.nan], [1e25, 1e25]])
def test_norm_that_is_not_finite_makes_all_gradients_nan(values: list[float]):
    """Also if only the squares overflow: clip_grad_norm_ would write zeros, and the run would seem to converge."""
    parameters = parameters_with(torch.tensor(values), torch.ones(2))
    assert clip_gradients(parameters, 1.0)
    assert all(parameter.grad.isnan().all() for parameter in parameters)


def test_no_gradients():
    assert not clip_gradients(parameters_with(None), 1.0)
