"""Landscapes against closed forms and the network itself."""

import numpy as np
import pytest
import torch

from batchscape.analysis.landscape import evaluate_on_plane, grid, normalize_filters, random_directions
from batchscape.config.model import VggConfig
from batchscape.tasks.objective import Measurement
from tests.helpers.networks import build_image_network
from tests.helpers.surfaces import (
    batch_norm_network,
    evaluate,
    image_surface,
    parameter_shapes,
    parameter_vector,
    synthetic_images,
)

IMAGES, LABELS = synthetic_images(70)
NETWORK = build_image_network(VggConfig(channels=(3, 4), dense=(5,)), (1, 8, 8), 1, 0)


class Polynomial:
    """The surface (θ₀ − 1)² + 10 θ₁, which changes if axes or signs are swapped."""

    has_batch_norm = False

    def __len__(self) -> int:
        return 1

    def value(self, weights: np.ndarray) -> Measurement:
        return Measurement(float((weights[0] - 1) ** 2 + 10 * weights[1]), {"accuracy": float(weights[1])})


def test_grid_is_ordered_by_row():
    assert grid((-1, 1), (0, 3), (3, 2)).tolist() == [[-1, 0], [0, 0], [1, 0], [-1, 3], [0, 3], [1, 3]]


def test_each_point_of_a_grid_has_its_own_loss():
    center, directions = np.array([0.5, 0.25]), np.array([[2.0, 1.0], [0.0, -3.0]])
    rows = evaluate_on_plane(Polynomial(), center, directions, grid((-1, 2), (-0.5, 0.5), (7, 4)), re_estimate=False)
    assert len(rows) == 28
    for row in rows.itertuples():
        first, second = 0.5 + 2 * row.x, 0.25 + row.x - 3 * row.y
        assert row.loss == pytest.approx((first - 1) ** 2 + 10 * second, rel=1e-13, abs=1e-13)
        assert row.accuracy == pytest.approx(second, rel=1e-13, abs=1e-13)
    assert set(rows["x"]) == set(np.linspace(-1, 2, 7))
    assert set(rows["y"]) == set(np.linspace(-0.5, 0.5, 4))


def test_splitting_a_grid_gives_identical_bits():
    surface = image_surface(NETWORK, IMAGES, LABELS)
    weights = parameter_vector(NETWORK)
    directions = np.stack(
        [normalize_filters(d, weights, parameter_shapes(NETWORK)) for d in random_directions(len(weights), 0)]
    )
    points = grid((-1, 1), (-2, 1), (4, 3))
    rows = evaluate_on_plane(surface, weights, directions, points, re_estimate=False)
    fresh = image_surface(NETWORK, IMAGES, LABELS)
    for parts in (2, 5, 12):
        pieces = [evaluate_on_plane(fresh, weights, directions, part, False) for part in np.array_split(points, parts)]
        assert np.array_equal(np.concatenate(pieces), rows.to_numpy())
    assert rows["loss"].nunique() == 12


def test_center_of_a_landscape_has_the_loss_of_the_network():
    weights = parameter_vector(NETWORK)
    directions = random_directions(len(weights), 0)
    rows = evaluate_on_plane(image_surface(NETWORK, IMAGES, LABELS), weights, directions, np.zeros((1, 2)), False)
    assert (rows["loss"][0], rows["accuracy"][0]) == pytest.approx(evaluate(NETWORK, IMAGES, LABELS), rel=1e-6)


def test_filters_of_a_direction_have_the_norms_of_the_weights():
    network = batch_norm_network()
    weights, shapes = parameter_vector(network), parameter_shapes(network)
    direction = random_directions(len(weights), 3)[0]
    scaled, start = normalize_filters(direction, weights, shapes), 0
    for shape in shapes.values():
        size = int(np.prod(shape))
        part, target, raw = (v[start : start + size].reshape(shape[0], -1) for v in (scaled, weights, direction))
        if len(shape) == 1:
            assert not part.any()
        else:
            assert np.linalg.norm(part, axis=1) == pytest.approx(np.linalg.norm(target, axis=1), rel=1e-9)
            cosines = (part * raw).sum(1) / np.linalg.norm(part, axis=1) / np.linalg.norm(raw, axis=1)
            assert cosines == pytest.approx(1)
        start += size
    assert start == len(scaled)


def test_zero_filter_stays_zero():
    assert normalize_filters(np.ones(4), np.zeros(4), {"a.weight": (2, 2)}).tolist() == [0, 0, 0, 0]
    assert normalize_filters(np.zeros(4), np.ones(4), {"a.weight": (2, 2)}).tolist() == [0, 0, 0, 0]


def test_directions_depend_on_the_seed_and_the_number_of_parameters():
    first = random_directions(1000, 0)
    assert np.array_equal(first, random_directions(1000, 0))
    assert not np.array_equal(first, random_directions(1000, 1))
    assert first.shape == (2, 1000)
    assert abs(np.corrcoef(first)[0, 1]) < 0.1
    assert first.std() == pytest.approx(1, rel=0.05)


def test_filter_normalized_landscape_is_invariant_to_rescaled_relu_layers():
    surface = image_surface(NETWORK, IMAGES, LABELS, dtype=torch.float64)
    factors = {"conv1.weight": 5.0, "conv1.bias": 5.0, "conv2.weight": 1 / 5}
    shapes = parameter_shapes(NETWORK)
    first = parameter_vector(NETWORK) + 0.01  # biases that are not zero
    sizes = np.cumsum([int(np.prod(shape)) for shape in shapes.values()])[:-1]
    second = np.concatenate(
        [factors.get(name, 1.0) * part for name, part in zip(shapes, np.split(first, sizes), strict=True)]
    )
    points = grid((-1, 1), (-1, 1), (5, 4))
    losses = []
    for weights in (first, second):
        directions = np.stack([normalize_filters(d, weights, shapes) for d in random_directions(len(weights), 0)])
        losses.append(evaluate_on_plane(surface, weights, directions, points, False)["loss"].to_numpy())
    assert losses[1] == pytest.approx(losses[0], rel=1e-9)
    assert losses[0].std() > 1e-3


def test_landscape_re_estimates_batch_norm_statistics_only_if_requested():
    network = batch_norm_network()
    surface = image_surface(network, IMAGES, LABELS)
    directions = np.stack([parameter_vector(network), np.zeros(len(parameter_vector(network)))])
    points = np.array([[0.5, 0.0]])
    fixed = evaluate_on_plane(surface, parameter_vector(network), directions, points, re_estimate=False)["loss"][0]
    estimated = evaluate_on_plane(surface, parameter_vector(network), directions, points, re_estimate=True)["loss"][0]
    surface.estimate_batch_norm_statistics(1.5 * parameter_vector(network))
    assert estimated == surface.value(1.5 * parameter_vector(network)).loss != fixed
