"""Gradient alignment against the gradients of batches."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from batchscape.analysis import gradient_alignment
from batchscape.analysis.gradient_alignment import draw_batches, measure_alignment
from batchscape.config.model import VggConfig
from batchscape.config.task import RegressionConfig
from batchscape.curvature.loss_surface import LossSurface
from batchscape.data.dataset import Dataset
from batchscape.data.spec import DataSpec
from batchscape.tasks.objective import SupervisedObjective
from batchscape.tasks.task import build_task
from tests.helpers.networks import build_image_network
from tests.helpers.objectives import CPU
from tests.helpers.surfaces import image_surface, parameter_vector, synthetic_images

IMAGES, LABELS = synthetic_images(70)
NETWORK = build_image_network(VggConfig(channels=(3, 4), dense=(5,)), (1, 8, 8), 1, 0)
GRADIENTS = np.random.default_rng(0).standard_normal((70, len(parameter_vector(NETWORK))))


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


def test_weighted_examples_count_by_their_weight():
    generator = np.random.default_rng(0)
    spec = DataSpec("numbers", (3,), "numbers")
    arrays = {
        "inputs": generator.standard_normal((8, 3)).astype(np.float32),
        "targets": generator.standard_normal(8).astype(np.float32),
        "weights": generator.uniform(0.2, 3, 8).astype(np.float32),
    }
    torch.manual_seed(0)
    objective = SupervisedObjective(nn.Linear(3, 1), build_task(RegressionConfig(name="regression"), spec))
    data = Dataset.from_numpy(spec, arrays)
    weights = np.array([0.3, -0.2, 1.0, 0.4])
    batches = np.array([[5, 0, 3, 1], [2, 7, 4, 6]])
    rows = measure_alignment(LossSurface(objective, data, CPU, torch.float64), weights, batches)
    # The mean squared error of a linear function has the gradients 2·(x·a + b − y)·(x, 1).
    inputs = np.column_stack([arrays["inputs"], np.ones(8)]).astype(np.float64)
    gradients = 2 * (inputs @ weights - arrays["targets"])[:, None] * inputs
    for row in rows.itertuples():
        groups = batches.reshape(-1, row.gradient_batch)
        means = [np.average(gradients[group], axis=0, weights=arrays["weights"][group]) for group in groups]
        totals = [arrays["weights"][group].sum() for group in groups]
        expected = np.average([np.linalg.norm(mean) for mean in means], weights=totals)
        assert row.gradient_norm == pytest.approx(expected, rel=1e-6)
    assert rows["gradient_norm"].is_monotonic_decreasing


@pytest.mark.parametrize("num_bytes", [0, 8, 17, 64])
def test_norms_do_not_depend_on_how_many_gradients_are_summed_at_once(num_bytes: int, monkeypatch: pytest.MonkeyPatch):
    surface = image_surface(NETWORK, IMAGES, LABELS)
    weights, batches = parameter_vector(NETWORK), draw_batches(70, 16, seed=1)
    monkeypatch.setattr(LossSurface, "example_gradients", lambda _, __, indices: GRADIENTS[indices])
    expected = measure_alignment(surface, weights, batches)
    monkeypatch.setattr(gradient_alignment, "GRADIENT_BYTES", num_bytes * len(weights))
    pd.testing.assert_frame_equal(measure_alignment(surface, weights, batches), expected, check_exact=True)
