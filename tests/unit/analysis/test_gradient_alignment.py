"""Gradient alignment against the gradients of batches."""

import numpy as np
import pytest
import torch

from batchscape.analysis.gradient_alignment import draw_batches, measure_alignment
from batchscape.config.model import VggConfig
from batchscape.models.build import build_network
from tests.helpers.surfaces import image_surface, parameter_vector, synthetic_images

IMAGES, LABELS = synthetic_images(70)
NETWORK = build_network(VggConfig(channels=(3, 4), dense=(5,)), (1, 8, 8), 1, 0)


def test_gradient_norms_match_the_gradients_of_batches():
    surface = image_surface(NETWORK, IMAGES, LABELS, dtype=torch.float64)
    weights = parameter_vector(NETWORK)
    batches = draw_batches(70, 16, seed=1)
    assert batches.shape == (4, 16)
    rows = measure_alignment(surface, weights, batches).set_index("gradient_batch")
    assert list(rows.index) == [1, 2, 4, 8, 16]
    for size in rows.index:
        groups = batches.reshape(-1, size)
        norms = [
            np.linalg.norm(image_surface(NETWORK, IMAGES[g], LABELS[g], dtype=torch.float64).gradient(weights)[1])
            for g in groups
        ]
        assert rows.loc[size, "gradient_norm"] == pytest.approx(np.mean(norms), rel=1e-9)
        assert rows.loc[size, "gradients"] == len(groups)
        assert rows.loc[size, "bound"] == rows.loc[1, "gradient_norm"]
        assert rows.loc[size, "alignment"] == pytest.approx(np.mean(norms) / rows.loc[1, "gradient_norm"], rel=1e-9)
    assert rows["gradient_norm"].is_monotonic_decreasing


def test_equal_gradients_have_an_alignment_of_one():
    surface = image_surface(NETWORK, IMAGES[:1].repeat(8, 1, 1, 1), LABELS[:1].repeat(8))
    rows = measure_alignment(surface, parameter_vector(NETWORK), draw_batches(8, 8, 0))
    assert rows["alignment"].tolist() == pytest.approx([1, 1, 1, 1], rel=1e-6)


def test_batches_have_different_examples_and_depend_on_the_seed():
    batches = draw_batches(300, 64, seed=0)
    assert batches.shape == (4, 64)
    assert len(np.unique(batches)) == 256
    assert batches.max() > 256  # from all over the data
    assert np.array_equal(batches, draw_batches(300, 64, seed=0))
    assert not np.array_equal(batches, draw_batches(300, 64, seed=1))
    assert np.array_equal(draw_batches(100, 128, seed=0), draw_batches(100, 64, seed=0))
    assert draw_batches(128, 256, seed=0).shape == (1, 128)
