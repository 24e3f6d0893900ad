"""Interpolation against the interpolated network."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from batchscape.analysis.interpolation import interpolate, lerp_weights
from batchscape.config.interpolation import InterpolationConfig
from batchscape.config.model import VggConfig
from batchscape.io.weights import Weights
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


def network_weights(network: nn.Module) -> Weights:
    buffers = {name: buffer.numpy().copy() for name, buffer in network.named_buffers()}
    return Weights(parameter_vector(network), parameter_shapes(network), buffers)


def test_ends_of_a_line_are_the_exact_weights():
    first, second = np.float32([0.1, 0.7, 1e-8]), np.float32([0.3, -0.2, 1e8])
    assert lerp_weights(first, second, 0).tolist() == first.astype(float).tolist()
    assert lerp_weights(first, second, 1).tolist() == second.astype(float).tolist()
    assert lerp_weights(first, second, -1) == pytest.approx(2 * first.astype(float) - second)
    assert lerp_weights(first, second, 0.25) == pytest.approx(0.75 * first.astype(float) + 0.25 * second)


def test_losses_on_a_line_are_those_of_the_interpolated_network():
    other = build_image_network(VggConfig(channels=(3, 4), dense=(5,)), (1, 8, 8), 1, 1)
    held_out = synthetic_images(30, seed=5)
    surfaces = image_surface(NETWORK, IMAGES, LABELS), image_surface(NETWORK, *held_out)
    rows = interpolate(*surfaces, network_weights(NETWORK), network_weights(other), InterpolationConfig(points=7))
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
def test_batch_norm_statistics_on_a_line_follow_the_policy(policy: str):
    first, second = batch_norm_network(0), batch_norm_network(1)
    held_out = synthetic_images(30, seed=5)
    surfaces = image_surface(first, IMAGES, LABELS), image_surface(first, *held_out)
    config = InterpolationConfig(points=7, alpha_range=(-1.0, 2.0), batch_norm=policy)
    rows = interpolate(*surfaces, network_weights(first), network_weights(second), config)
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
                place = min(max(row.alpha, 0), 1)  # beyond, a variance could be negative
                getattr(middle[1], name).copy_((1 - place) * ends[0] + place * ends[1])
        assert row.train_loss == pytest.approx(evaluate(middle, IMAGES, LABELS)[0], rel=1e-5)
        assert row.validation_loss == pytest.approx(evaluate(middle, *held_out)[0], rel=1e-5)


class HasBuffers(nn.Module):
    """A network with a running statistic of its own, and a mask that is infinite."""

    def __init__(self, seed: int):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
            self.register_buffer("mean", torch.randn(3))
        self.register_buffer("mask", torch.tensor([0.0, 0.0, -torch.inf]))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return ((self.layers(images) - self.mean) + self.mask).softmax(1)[:, :1]


@pytest.mark.parametrize("policy", ["re-estimate", "interpolate", "fixed"])
def test_other_buffers_on_a_line_are_interpolated_unless_fixed(policy: str):
    first, second = HasBuffers(0), HasBuffers(1)
    held_out = synthetic_images(30, seed=5)
    surfaces = image_surface(first, IMAGES, LABELS), image_surface(first, *held_out)
    config = InterpolationConfig(points=7, alpha_range=(-1.0, 2.0), batch_norm=policy)
    rows = interpolate(*surfaces, network_weights(first), network_weights(second), config)
    assert set(rows["batch_norm"]) == {"none"}
    for row in rows.itertuples():
        middle = copy.deepcopy(first)
        vector = (1 - row.alpha) * parameter_vector(first) + row.alpha * parameter_vector(second)
        nn.utils.vector_to_parameters(torch.from_numpy(vector).float(), middle.parameters())
        if policy != "fixed":
            place = min(max(row.alpha, 0), 1)
            middle.mean.copy_((1 - place) * first.mean + place * second.mean)
        assert row.train_loss == pytest.approx(evaluate(middle, IMAGES, LABELS)[0], rel=1e-5)
        assert row.validation_loss == pytest.approx(evaluate(middle, *held_out)[0], rel=1e-5)
