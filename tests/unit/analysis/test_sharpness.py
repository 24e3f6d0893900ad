"""Sharpness against closed forms: quadratics, whose maximum in a box is in a corner, and rescaled networks."""

import numpy as np
import psutil
import pytest
import torch
from scipy.optimize import minimize
from torch import nn

from batchscape.analysis.sharpness import (
    hutchpp_trace,
    keskar_half_widths,
    keskar_sharpness,
    maximize,
    measure_sharpness,
    random_subspace,
    restrict_to_subspace,
    top_eigenvalue,
)
from batchscape.config.model import VggConfig
from batchscape.config.sharpness import SharpnessConfig
from batchscape.curvature.loss_surface import LossSurface
from batchscape.data.prepared import PreparedData
from tests.helpers.networks import build_image_network
from tests.helpers.objectives import tensors_of
from tests.helpers.surfaces import MATRIX, Quadratic, image_surface, parameter_vector

SEARCH = {"iterations": 10, "random_starts": 3, "seed": 0}
CENTER = np.array([0.5, -2.0, 0.0])


def around(surface: Quadratic):
    return lambda step: surface.gradient(surface.center + step)


def by_measure(rows) -> dict[tuple[str, float], float]:
    return {(row.measure, row.radius): row.value for row in rows.itertuples()}


@pytest.mark.parametrize("slope", [[0.0, 0.0, 0.0], [0.1, -0.2, 0.05]])
def test_maximum_of_a_quadratic_is_found_in_a_corner_of_the_box(slope: list[float]):
    surface = Quadratic(MATRIX, CENTER, 0.25, np.array(slope))
    half_widths = np.array([0.1, 0.3, 0.2])
    found = maximize(around(surface), half_widths, iterations=10, random_starts=20, seed=0)
    assert found.value == pytest.approx(surface.max_in_box(half_widths), rel=1e-9)
    assert found.center_value == 0.25
    assert found.on_bounds == 1


def test_maximum_around_a_minimum_is_found_by_a_random_start():
    surface = Quadratic(MATRIX, CENTER, 0.0)
    half_widths = np.full(3, 0.1)
    without_starts = maximize(around(surface), half_widths, iterations=10, random_starts=0, seed=0)
    assert (without_starts.value, without_starts.start, without_starts.iterations) == (0.0, "none", 0)
    found = maximize(around(surface), half_widths, **SEARCH)
    assert found.value > 0
    assert found.start.startswith("random")


def test_maximum_is_the_largest_evaluation_and_at_least_the_center():
    peak = Quadratic(-MATRIX, CENTER, 1.0)
    assert maximize(around(peak), np.full(3, 0.5), **SEARCH).value == 1.0

    def spike(step: np.ndarray) -> tuple[float, np.ndarray]:
        """Largest near the center, where the gradient points away."""
        return (9.0 if abs(step[0]) < 0.05 and step.any() else -abs(step[0])), np.array([1.0])

    assert maximize(spike, np.array([0.1]), iterations=3, random_starts=20, seed=0).value == 9.0


def test_maximum_inside_a_box_of_different_half_widths_is_found():
    """If objective and gradient were scaled differently, the search would miss it."""
    half_widths, argmax = np.array([1e-3, 10.0, 0.1]), np.array([0.4e-3, -6.0, 0.02])
    curvature = np.array([2.0, 1.0, 3.0]) / half_widths**2
    found = maximize(
        lambda z: (-curvature @ (z - argmax) ** 2, -2 * curvature * (z - argmax)),
        half_widths,
        6,
        random_starts=0,
        seed=0,
    )
    assert found.value == pytest.approx(0, abs=1e-6)


def test_evaluations_are_counted():
    calls = []
    surface = Quadratic(MATRIX, CENTER)
    found = maximize(lambda step: (calls.append(1), surface.gradient(CENTER + step))[1], np.full(3, 0.1), **SEARCH)
    assert found.evaluations == len(calls) > 4


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_value_that_is_not_finite_is_returned(bad: float):
    def cliff(step: np.ndarray) -> tuple[float, np.ndarray]:
        return (bad, np.full(1, np.nan)) if step[0] > 0.05 else (step[0], np.ones(1))

    found = maximize(cliff, np.array([0.1]), **SEARCH)
    assert found.value is not None
    assert np.isnan(found.value) if np.isnan(bad) else found.value == np.inf
    nowhere = maximize(lambda step: (bad, step), np.array([0.1]), **SEARCH)
    assert not np.isfinite(nowhere.value)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_maximum_does_not_depend_on_the_scale_of_the_function(scale: float):
    surface = Quadratic(scale * MATRIX, CENTER, 0.0, scale * np.array([1e-3, 0, 0]))
    half_widths = np.full(3, 0.1)
    assert maximize(around(surface), half_widths, **SEARCH).value == pytest.approx(
        surface.max_in_box(half_widths), rel=1e-9
    )


def test_measures_of_a_quadratic_match_their_closed_forms():
    config = SharpnessConfig(epsilons=(0.1, 0.2), adaptive_radii=(0.3,), random_starts=5, trace_matvecs=9)
    surface = Quadratic(MATRIX, CENTER, 0.25)
    found = by_measure(measure_sharpness(surface, CENTER, config))
    for epsilon in (0.1, 0.2):
        box = epsilon * np.array([1.5, 3.0, 1.0])
        phi = 100 * (surface.max_in_box(box) - 0.25) / 1.25
        assert found["keskar", epsilon] == pytest.approx(phi, rel=1e-6)
    # |δ_i| ≤ ρ|θ_i| with θ = (½, −2, 0): greatest where both have the same sign.
    step = np.array([0.15, 0.6, 0.0])
    assert found["adaptive", 0.3] == pytest.approx(step @ MATRIX @ step / 2, rel=1e-6)
    assert found["hessian_eigenvalue", 0.0] == pytest.approx(np.linalg.eigvalsh(MATRIX)[-1], rel=1e-3)
    assert found["hessian_trace", 0.0] == pytest.approx(9.0, rel=1e-9)  # Hutch++ of rank 3 in 3 dimensions is exact


def test_keskars_sharpness_of_a_negative_loss_is_not_computed():
    """It is relative to 1 + f, so at −3 a maximum would have a negative sharpness."""
    rows = measure_sharpness(Quadratic(MATRIX, CENTER, -3.0), CENTER, SharpnessConfig()).set_index("measure")
    keskar = rows.index.str.startswith("keskar")
    assert rows.loc[keskar, "value"].isna().all()
    assert rows.loc[keskar, "not_computed"].eq("the loss is negative").all()
    assert rows.loc[~keskar, "value"].gt(0).all()
    assert rows.loc[~keskar, "not_computed"].eq("none").all()


def test_box_in_a_subspace_is_relative_to_the_coordinates_of_the_weights():
    basis = random_subspace(2, 3, seed=4)
    assert np.linalg.norm(basis, axis=0) == pytest.approx(1)
    assert np.array_equal(basis, random_subspace(2, 3, seed=4))
    surface = Quadratic(MATRIX, CENTER, 0.25)
    config = SharpnessConfig(epsilons=(0.1,), subspace_dimension=2, random_starts=5, trace_matvecs=3, seed=4)
    half_widths = 0.1 * (np.abs(np.linalg.pinv(basis) @ CENTER) + 1)
    corners = [basis @ (half_widths * np.array(signs)) for signs in ([1, 1], [1, -1])]
    greatest = max(0.25 + corner @ MATRIX @ corner / 2 for corner in corners)
    found = by_measure(measure_sharpness(surface, CENTER, config))
    assert found["keskar_subspace", 0.1] == pytest.approx(100 * (greatest - 0.25) / 1.25, rel=1e-6)


def test_gradient_in_a_subspace_matches_finite_differences():
    basis = random_subspace(2, 3, seed=0)
    restricted = restrict_to_subspace(around(Quadratic(MATRIX, CENTER, 0.0, np.ones(3))), basis)
    point, step = np.array([0.3, -0.2]), 1e-6
    numeric = [
        (restricted(point + step * axis)[0] - restricted(point - step * axis)[0]) / (2 * step) for axis in np.eye(2)
    ]
    assert restricted(point)[1] == pytest.approx(numeric, rel=1e-6)


def test_eigenvalue_and_trace_of_a_large_matrix():
    draw = np.random.default_rng(0)
    half = draw.normal(size=(200, 30))
    matrix = half @ half.T - 5 * np.eye(200)
    assert top_eigenvalue(matrix.__matmul__, 200, 0) == pytest.approx(np.linalg.eigvalsh(matrix)[-1], rel=2e-3)
    assert hutchpp_trace(matrix.__matmul__, 200, 120, 0) == pytest.approx(np.trace(matrix), rel=0.05)
    assert top_eigenvalue((-matrix).__matmul__, 200, 0) == pytest.approx(5, rel=2e-3)  # not the largest in magnitude


def test_zero_hessian_gives_zero_and_nan_products_give_nan():
    """As for networks with dead units or saturated outputs, or with weights so large that products overflow."""
    calls = iter(range(1000))
    assert top_eigenvalue(np.zeros_like, 50, 0) == hutchpp_trace(np.zeros_like, 50, 12, 0) == 0
    assert np.isnan(top_eigenvalue(lambda vector: vector * np.nan, 50, 0))
    assert np.isnan(top_eigenvalue(lambda vector: vector * (np.nan if next(calls) else 1.0), 50, 0))
    assert np.isnan(hutchpp_trace(lambda vector: vector * np.nan, 50, 12, 0))


def test_hutchpp_is_exact_for_a_diagonal_matrix_of_low_rank():
    diagonal = np.zeros(40)
    diagonal[[3, 17, 22]] = 5.0, -2.0, 0.5
    assert hutchpp_trace(lambda vector: diagonal * vector, 40, 12, 0) == pytest.approx(3.5, rel=1e-12)


def test_hutchpp_is_unbiased():
    generator = np.random.default_rng(0)
    half = generator.normal(size=(60, 60))
    matrix = half @ half.T
    estimates = [hutchpp_trace(matrix.__matmul__, 60, 12, seed) for seed in range(200)]
    standard_error = np.std(estimates, ddof=1) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates) - np.trace(matrix)) <= 3 * standard_error


def test_hutchpp_takes_the_given_number_of_products():
    calls = []
    hutchpp_trace(lambda vector: calls.append(1) or vector, 50, 30, 0)
    assert len(calls) == 30


def test_hutchpp_depends_on_the_seed_alone_and_leaves_the_global_random_state():
    generator = np.random.default_rng(0).normal(size=(50, 50))
    matrix = generator + generator.T
    np.random.seed(5)  # noqa: NPY002
    first = hutchpp_trace(matrix.__matmul__, 50, 30, 1)
    after = np.random.random()  # noqa: NPY002
    np.random.seed(5)  # noqa: NPY002
    assert np.random.random() == after  # noqa: NPY002
    assert hutchpp_trace(matrix.__matmul__, 50, 30, 1) == first != hutchpp_trace(matrix.__matmul__, 50, 30, 2)


def test_measures_are_nan_if_the_loss_is_not_finite():
    class NotFinite(Quadratic):
        def gradient(self, weights: np.ndarray) -> tuple[float, np.ndarray]:
            return np.nan, weights

        def hessian_vector_product(self, weights: np.ndarray, vector: np.ndarray) -> np.ndarray:  # noqa: ARG002
            return np.full(3, np.nan)

    rows = measure_sharpness(NotFinite(MATRIX, CENTER), np.full(3, np.nan), SharpnessConfig())
    assert len(rows) == 7
    assert rows["value"].isna().all()


# On networks.


@pytest.fixture(scope="module")
def trained(small_data: PreparedData) -> tuple[nn.Module, LossSurface]:
    return train_briefly(VggConfig(channels=(4,), dense=(6,)), small_data)


def train_briefly(config: VggConfig, small_data: PreparedData) -> tuple[nn.Module, LossSurface]:
    """Return a network before convergence, and its loss over some digits."""
    network = build_image_network(config, (1, 8, 8), 1, 0)
    images, labels = tensors_of(small_data.train)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(network(images / 255)[:, 0], labels.float()).backward()
        optimizer.step()
    return network, image_surface(network, images, labels, dtype=torch.float64)


@pytest.mark.parametrize("epsilon", [1e-3, 5e-4])
def test_sharpness_matches_other_optimizers(trained: tuple, epsilon: float):
    network, surface = trained
    weights = parameter_vector(network)
    found = maximize(lambda z: surface.gradient(weights + z), keskar_half_widths(weights, epsilon), 10, 2, seed=0)
    # Independent of `maximize`: in plain coordinates, by other methods, with many more evaluations.
    half_widths = epsilon * (np.abs(weights) + 1)
    limits = list(zip(weights - half_widths, weights + half_widths, strict=True))
    random = weights + np.random.default_rng(9).uniform(-half_widths, half_widths)
    scale, greatest = 1e4, 0.0
    for method in ("L-BFGS-B", "TNC"):
        for start in (weights, random):
            result = minimize(
                lambda w: tuple(-scale * part for part in surface.gradient(w)),
                start, jac=True, method=method, bounds=limits, options={"maxfun": 200},
            )  # fmt: skip
            greatest = max(greatest, -result.fun / scale)
    phi = 100 * (greatest - surface.value(weights).loss) / (1 + surface.value(weights).loss)
    assert keskar_sharpness(found) == pytest.approx(phi, rel=0.01)
    assert keskar_sharpness(found) > 0


def test_adaptive_sharpness_is_invariant_to_rescaled_relu_layers_and_keskars_is_not(trained: tuple):
    """Dinh et al. 2017: scaling one layer by α and the next by 1/α gives the same function."""
    network, surface = trained
    weights, config = parameter_vector(network), SharpnessConfig(random_starts=0)
    factors = {"conv1.weight": 8.0, "conv1.bias": 8.0, "dense1.weight": 1 / 8}
    scaled = np.concatenate(
        [factors.get(name, 1.0) * p.detach().numpy().ravel().astype(float) for name, p in network.named_parameters()]
    )
    assert surface.value(scaled).loss == pytest.approx(surface.value(weights).loss, rel=1e-10)
    before, after = (by_measure(measure_sharpness(surface, at, config)) for at in (weights, scaled))
    assert after["adaptive", 0.01] == pytest.approx(before["adaptive", 0.01], rel=1e-6)
    assert abs(after["keskar", 0.001] / before["keskar", 0.001] - 1) > 0.2
    assert abs(after["hessian_eigenvalue", 0] / before["hessian_eigenvalue", 0] - 1) > 0.2


def test_hessian_of_a_network_matches_finite_differences_of_its_gradient(small_data: PreparedData):
    network, surface = train_briefly(VggConfig(channels=(3,), dense=()), small_data)  # each weight needs several passes
    weights = parameter_vector(network)
    step = 1e-7  # small because of the kinks of ReLU
    columns = [
        (surface.gradient(weights + step * axis)[1] - surface.gradient(weights - step * axis)[1]) / (2 * step)
        for axis in np.eye(len(weights))
    ]
    hessian = np.stack(columns)
    rows = by_measure(measure_sharpness(surface, weights, SharpnessConfig(trace_matvecs=3 * len(weights))))
    assert rows["hessian_eigenvalue", 0] == pytest.approx(np.linalg.eigvalsh((hessian + hessian.T) / 2)[-1], rel=2e-3)
    assert rows["hessian_trace", 0] == pytest.approx(np.trace(hessian), rel=1e-3)


def test_subspace_larger_than_memory_raises_an_error(refusal):
    message = refusal(random_subspace, 100, psutil.virtual_memory().total // 1000, seed=0)
    assert message.startswith("sharpness.subspace_dimension: 100 directions of ")
    assert "more than the memory of this machine; use a smaller dimension" in message
