"""Interpolation, landscape, trajectory and gradient alignment against closed forms and the plain network."""

import copy
import logging

import numpy as np
import pytest
import torch
from torch import nn

from batchscape.analysis.gradient_alignment import draw_batches, measure_alignment
from batchscape.analysis.interpolation import interpolate, lerp_weights
from batchscape.analysis.landscape import evaluate_on_plane, grid, normalize_filters, random_directions
from batchscape.analysis.trajectory import padded_range, principal_plane
from batchscape.config.interpolation import InterpolationConfig
from batchscape.config.model import VggConfig
from batchscape.curvature.loss_surface import LossAndAccuracy, LossSurface
from batchscape.io.weights import Weights
from batchscape.models.build import build_network
from batchscape.runtime.progress import map_with_progress
from tests.helpers.surfaces import batch_norm_network, evaluate, parameter_shapes, parameter_vector, synthetic_images

IMAGES, LABELS = synthetic_images(70)
NETWORK = build_network(VggConfig(channels=(3, 4), dense=(5,)), (1, 8, 8), 1, 0)


class Plain:
    """A function of two weights, as a surface: (θ₀ − 1)² + 10 θ₁, which no exchange of axes or sign leaves alone."""

    has_batch_norm = False

    def __len__(self) -> int:
        return 1

    def value(self, weights: np.ndarray) -> LossAndAccuracy:
        return LossAndAccuracy(float((weights[0] - 1) ** 2 + 10 * weights[1]), float(weights[1]))


def weights_of(network: nn.Module) -> Weights:
    buffers = {name: buffer.numpy().copy() for name, buffer in network.named_buffers()}
    return Weights(parameter_vector(network), parameter_shapes(network), buffers)


# Landscape.


def test_a_grid_is_the_rectangle_row_by_row():
    assert grid((-1, 1), (0, 3), (3, 2)).tolist() == [[-1, 0], [0, 0], [1, 0], [-1, 3], [0, 3], [1, 3]]


def test_every_point_of_an_oblong_grid_has_the_loss_of_its_own_place():
    center, directions = np.array([0.5, 0.25]), np.array([[2.0, 1.0], [0.0, -3.0]])
    rows = evaluate_on_plane(Plain(), center, directions, grid((-1, 2), (-0.5, 0.5), (7, 4)), re_estimate=False)
    assert len(rows) == 28
    for row in rows.itertuples():
        first, second = 0.5 + 2 * row.x, 0.25 + row.x - 3 * row.y
        assert row.loss == pytest.approx((first - 1) ** 2 + 10 * second, rel=1e-13, abs=1e-13)
        assert row.accuracy == pytest.approx(second, rel=1e-13, abs=1e-13)
    assert set(rows["x"]) == set(np.linspace(-1, 2, 7))
    assert set(rows["y"]) == set(np.linspace(-0.5, 0.5, 4))


def test_the_split_of_a_grid_does_not_change_a_bit():
    surface = LossSurface(NETWORK, IMAGES, LABELS)
    weights = parameter_vector(NETWORK)
    directions = np.stack(
        [normalize_filters(d, weights, parameter_shapes(NETWORK)) for d in random_directions(len(weights), 0)]
    )
    places = grid((-1, 1), (-2, 1), (4, 3))
    whole = evaluate_on_plane(surface, weights, directions, places, re_estimate=False)
    fresh = LossSurface(NETWORK, IMAGES, LABELS)
    for parts in (2, 5, 12):
        pieces = [evaluate_on_plane(fresh, weights, directions, part, False) for part in np.array_split(places, parts)]
        assert np.array_equal(np.concatenate(pieces), whole.to_numpy())
    assert whole["loss"].nunique() == 12


def test_the_centre_of_a_landscape_is_the_loss_of_the_network():
    weights = parameter_vector(NETWORK)
    directions = random_directions(len(weights), 0)
    rows = evaluate_on_plane(LossSurface(NETWORK, IMAGES, LABELS), weights, directions, np.zeros((1, 2)), False)
    assert (rows["loss"][0], rows["accuracy"][0]) == pytest.approx(evaluate(NETWORK, IMAGES, LABELS), rel=1e-6)


def test_each_filter_of_a_direction_has_the_norm_of_its_filter():
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


def test_a_filter_of_zeros_does_not_move():
    assert normalize_filters(np.ones(4), np.zeros(4), {"a.weight": (2, 2)}).tolist() == [0, 0, 0, 0]
    assert normalize_filters(np.zeros(4), np.ones(4), {"a.weight": (2, 2)}).tolist() == [0, 0, 0, 0]


def test_directions_are_a_function_of_the_seed_and_the_number_of_parameters():
    first = random_directions(1000, 0)
    assert np.array_equal(first, random_directions(1000, 0))
    assert not np.array_equal(first, random_directions(1000, 1))
    assert first.shape == (2, 1000)
    assert abs(np.corrcoef(first)[0, 1]) < 0.1
    assert first.std() == pytest.approx(1, rel=0.05)


def test_rescaled_relu_layers_leave_the_filter_normalised_surface_alone():
    surface = LossSurface(NETWORK, IMAGES, LABELS, dtype=torch.float64)
    factors = {"conv1.weight": 5.0, "conv1.bias": 5.0, "conv2.weight": 1 / 5}
    shapes = parameter_shapes(NETWORK)
    first = parameter_vector(NETWORK) + 0.01  # biases that are not zero
    sizes = np.cumsum([int(np.prod(shape)) for shape in shapes.values()])[:-1]
    second = np.concatenate(
        [factors.get(name, 1.0) * part for name, part in zip(shapes, np.split(first, sizes), strict=True)]
    )
    places = grid((-1, 1), (-1, 1), (5, 4))
    found = []
    for weights in (first, second):
        directions = np.stack([normalize_filters(d, weights, shapes) for d in random_directions(len(weights), 0)])
        found.append(evaluate_on_plane(surface, weights, directions, places, False)["loss"].to_numpy())
    assert found[1] == pytest.approx(found[0], rel=1e-9)
    assert found[0].std() > 1e-3


# Interpolation.


def test_the_ends_of_a_line_are_the_runs_to_the_last_bit():
    first, second = np.float32([0.1, 0.7, 1e-8]), np.float32([0.3, -0.2, 1e8])
    assert lerp_weights(first, second, 0).tolist() == first.astype(float).tolist()
    assert lerp_weights(first, second, 1).tolist() == second.astype(float).tolist()
    assert lerp_weights(first, second, -1) == pytest.approx(2 * first.astype(float) - second)
    assert lerp_weights(first, second, 0.25) == pytest.approx(0.75 * first.astype(float) + 0.25 * second)


def test_on_a_line_each_side_has_the_loss_of_the_network_between():
    other = build_network(VggConfig(channels=(3, 4), dense=(5,)), (1, 8, 8), 1, 1)
    held_out = synthetic_images(30, seed=5)
    surfaces = LossSurface(NETWORK, IMAGES, LABELS), LossSurface(NETWORK, *held_out)
    rows = interpolate(*surfaces, weights_of(NETWORK), weights_of(other), InterpolationConfig(points=7))
    assert rows["alpha"].tolist() == [-1, -0.5, 0, 0.5, 1, 1.5, 2]
    assert set(rows["batch_norm"]) == {"none"}
    for row in rows.itertuples():
        middle = copy.deepcopy(NETWORK)
        vector = torch.from_numpy(
            (1 - row.alpha) * parameter_vector(NETWORK) + row.alpha * parameter_vector(other)
        ).float()
        nn.utils.vector_to_parameters(vector, middle.parameters())
        assert (row.train_loss, row.train_accuracy) == pytest.approx(evaluate(middle, IMAGES, LABELS), rel=1e-5)
        assert (row.validation_loss, row.validation_accuracy) == pytest.approx(evaluate(middle, *held_out), rel=1e-5)


@pytest.mark.parametrize("policy", ["re-estimate", "interpolate", "fixed"])
def test_batch_norm_on_a_line_follows_the_policy(policy: str):
    first, second = batch_norm_network(0), batch_norm_network(1)
    held_out = synthetic_images(30, seed=5)
    surfaces = LossSurface(first, IMAGES, LABELS), LossSurface(first, *held_out)
    config = InterpolationConfig(points=3, alpha_range=(0.0, 1.0), batch_norm=policy)
    rows = interpolate(*surfaces, weights_of(first), weights_of(second), config)
    assert set(rows["batch_norm"]) == {policy}
    for row in rows.itertuples():
        middle = copy.deepcopy(first)
        vector = (1 - row.alpha) * parameter_vector(first) + row.alpha * parameter_vector(second)
        nn.utils.vector_to_parameters(torch.from_numpy(vector).float(), middle.parameters())
        if policy == "re-estimate":
            middle[1].reset_running_stats()
            middle[1].momentum = None
            with torch.no_grad():
                middle.train()(IMAGES / 255)  # 70 images are one batch
        elif policy == "interpolate":
            for name in ("running_mean", "running_var"):
                ends = getattr(first[1], name), getattr(second[1], name)
                getattr(middle[1], name).copy_((1 - row.alpha) * ends[0] + row.alpha * ends[1])
        assert row.train_loss == pytest.approx(evaluate(middle, IMAGES, LABELS)[0], rel=1e-5)
        assert row.validation_loss == pytest.approx(evaluate(middle, *held_out)[0], rel=1e-5)


def test_a_landscape_re_estimates_batch_norm_only_if_asked():
    network = batch_norm_network()
    surface = LossSurface(network, IMAGES, LABELS)
    directions = np.stack([parameter_vector(network), np.zeros(len(parameter_vector(network)))])
    places = np.array([[0.5, 0.0]])
    fixed = evaluate_on_plane(surface, parameter_vector(network), directions, places, re_estimate=False)["loss"][0]
    estimated = evaluate_on_plane(surface, parameter_vector(network), directions, places, re_estimate=True)["loss"][0]
    surface.estimate_batch_norm_statistics(1.5 * parameter_vector(network))
    assert estimated == surface.value(1.5 * parameter_vector(network)).loss != fixed


# Trajectory.


def test_a_trajectory_in_a_plane_is_found_with_its_plane():
    draw = np.random.default_rng(0)
    axes = np.linalg.qr(draw.normal(size=(50, 2)))[0].T
    places = np.array([[-4.0, 0.0], [-3.0, 1.0], [-1.0, 1.5], [0.0, 0.0], [0.5, -0.5]])
    minimizer = draw.normal(size=50)
    plane = principal_plane(minimizer + places @ axes, minimizer)
    assert plane.explained_variance.sum() == pytest.approx(1)
    assert plane.explained_variance[0] > plane.explained_variance[1]
    assert plane.directions @ plane.directions.T == pytest.approx(np.eye(2), abs=1e-12)
    assert plane.coordinates @ plane.directions == pytest.approx(places @ axes, abs=1e-12)
    assert plane.coordinates[3] == pytest.approx([0, 0], abs=1e-12)
    assert np.ptp(plane.coordinates[:, 0]) > np.ptp(plane.coordinates[:, 1])


def test_a_margin_reaches_beyond_on_both_sides():
    assert padded_range(np.array([3.0, -1.0, 0.0]), 0.25) == (-2.0, 4.0)


# Gradient alignment.


def test_gradient_norms_are_those_of_the_batches():
    surface = LossSurface(NETWORK, IMAGES, LABELS, dtype=torch.float64)
    weights = parameter_vector(NETWORK)
    batches = draw_batches(70, 16, None, seed=1)
    assert batches.shape == (4, 16)
    rows = measure_alignment(surface, weights, batches).set_index("gradient_batch")
    assert list(rows.index) == [1, 2, 4, 8, 16]
    for size in rows.index:
        groups = batches.reshape(-1, size)
        norms = [
            np.linalg.norm(LossSurface(NETWORK, IMAGES[g], LABELS[g], torch.float64).gradient(weights)[1])
            for g in groups
        ]
        assert rows.loc[size, "gradient_norm"] == pytest.approx(np.mean(norms), rel=1e-9)
        assert rows.loc[size, "gradients"] == len(groups)
        assert rows.loc[size, "bound"] == rows.loc[1, "gradient_norm"]
        assert rows.loc[size, "alignment"] == pytest.approx(np.mean(norms) / rows.loc[1, "gradient_norm"], rel=1e-9)
    assert rows["gradient_norm"].is_monotonic_decreasing


def test_equal_gradients_reach_the_bound():
    surface = LossSurface(NETWORK, IMAGES[:1].repeat(8, 1, 1, 1), LABELS[:1].repeat(8))
    rows = measure_alignment(surface, parameter_vector(NETWORK), draw_batches(8, 8, None, 0))
    assert rows["alignment"].tolist() == pytest.approx([1, 1, 1, 1], rel=1e-6)


def test_batches_are_different_examples_and_a_function_of_the_seed():
    batches = draw_batches(1000, 64, 300, seed=0)
    assert batches.shape == (4, 64)
    assert len(np.unique(batches)) == 256
    assert batches.max() > 500  # from all over the data
    assert np.array_equal(batches, draw_batches(1000, 64, 300, seed=0))
    assert not np.array_equal(batches, draw_batches(1000, 64, 300, seed=1))
    assert np.array_equal(draw_batches(100, 128, None, seed=0), draw_batches(100, 64, None, seed=0))
    assert draw_batches(128, 256, None, seed=0).shape == (1, 128)
    assert draw_batches(100, 16, 15, seed=0).shape == (1, 8)


# What the log says.


def test_the_log_tells_number_and_time_beforehand_and_then_the_progress(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    clock = iter(range(0, 10_000, 10))
    monkeypatch.setattr("batchscape.runtime.progress.time.perf_counter", lambda: float(next(clock)))
    caplog.set_level(logging.INFO)
    work = map_with_progress(lambda number: number**2, range(1, 21), 20, "the loss over 7 images")
    assert next(work) == 1
    assert caplog.messages == ["20 evaluations of the loss over 7 images, about 3 min"]
    assert list(work) == [number**2 for number in range(2, 21)]
    told = [message for message in caplog.messages if "left" in message]
    assert 3 <= len(told) <= 8
    assert told[0] == "4 of 20 (20 %), about 2 min left"  # 30 s for four
    assert caplog.messages[-1].startswith("20 of 20 in")
