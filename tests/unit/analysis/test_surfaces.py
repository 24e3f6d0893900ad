"""Which examples the analyses of the loss surface look at."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import r2_score

from batchscape.analysis.surfaces import (
    build_initial_objective,
    draw_examples,
    draw_rows,
    parse_spec,
    training_surface,
    validation_surface,
)
from batchscape.config.analysis import AnalysisConfig
from batchscape.config.budget import Budget
from batchscape.config.gradient_alignment import GradientAlignmentConfig
from batchscape.config.landscape import LandscapeConfig
from batchscape.config.model import MlpConfig
from batchscape.config.run import RunSpec
from batchscape.config.study import StudyConfig
from batchscape.config.task import ClassificationConfig, RegressionConfig
from batchscape.config.training import TrainingConfig
from batchscape.data.dataset import Dataset
from batchscape.data.prepared import PreparedData, read_prepared, write_prepared
from batchscape.data.spec import DataSpec
from batchscape.io.run_directory import RunDirectory
from batchscape.study.plan import Plan
from batchscape.study.specs import Specs
from batchscape.training.train import train
from tests.helpers.objectives import image_data, images_of, labels_of


def numbered(count: int) -> Dataset:
    """Return examples whose inputs are their indices."""
    spec = DataSpec("numbers", (1,), "class", classes=("a", "b"))
    return Dataset.from_numpy(spec, {"inputs": np.arange(count, dtype=np.float32)[:, None]})


def test_drawn_examples_are_in_order_distinct_and_depend_on_the_seed():
    def draw(seed: int) -> np.ndarray:
        return draw_rows(numbered(60_000), 4096, seed).arrays["inputs"][:, 0].numpy()

    indices = draw(0)
    assert len(indices) == 4096
    assert (np.diff(indices) > 0).all()
    assert 0 <= indices[0] < 200
    assert 59_800 < indices[-1] < 60_000
    # The mean of a sample without replacement has a standard error of 17,320/64·√(1 − 4096/60000) = 261.
    assert indices.mean() == pytest.approx(29_999.5, abs=4 * 261)
    assert np.array_equal(indices, draw(0))
    assert not np.array_equal(indices, draw(1))


@pytest.mark.parametrize("limit", [10, 11, 4096])
def test_a_side_with_no_more_examples_than_the_limit_is_used_as_it_is(limit: int):
    data = numbered(10)
    assert draw_rows(data, limit, seed=0) is data


def test_each_side_is_limited_by_itself_and_inputs_stay_with_their_targets():
    labels = np.arange(50)
    images = np.broadcast_to(labels[:, None, None, None], (50, 1, 2, 2)).astype(np.uint8)
    data = image_data(images, labels, images[:7], labels[:7], ("odd", "even"))
    drawn = draw_examples(data, AnalysisConfig(examples=12, seed=3))
    assert len(drawn.train) == 12
    assert np.array_equal(images_of(drawn.train)[:, 0, 0, 0], labels_of(drawn.train))
    assert np.array_equal(labels_of(drawn.validation), labels[:7])
    assert len(data.train) == 50


def train_linear(folder: Path, data: PreparedData, task: ClassificationConfig | RegressionConfig) -> RunDirectory:
    """Train a linear network for an epoch."""
    write_prepared(folder / "data", data)
    model = MlpConfig(name="mlp", dense=())
    training = TrainingConfig(budget=Budget(epochs=1), patience=1)
    spec = RunSpec(batch_size=8, learning_rate=0.01, seed=0, model=model, task=task, training=training)
    return RunDirectory(train(spec, folder / "data", folder / "run"))


def test_r2_of_drawn_examples_is_that_of_these_examples(tmp_path: Path):
    spec = DataSpec("numbers", (3,), "numbers")
    generator = np.random.default_rng(0)
    sides = [
        Dataset.from_numpy(
            spec,
            {
                "inputs": generator.standard_normal((count, 3)).astype(np.float32),
                "targets": generator.standard_exponential(count).astype(np.float32),
                "weights": generator.uniform(0.5, 2, count).astype(np.float32),
            },
        )
        for count in (60, 40)
    ]
    run = train_linear(tmp_path, PreparedData(spec, *sides, None), RegressionConfig(name="regression"))
    drawn = draw_examples(read_prepared(tmp_path / "data"), AnalysisConfig(examples=20))
    objective = build_initial_objective(run, drawn)
    weights = np.concatenate([part.detach().numpy().ravel() for part in objective.module.parameters()])
    surfaces = {"train": training_surface(run, drawn), "validation": validation_surface(run, drawn)}
    for side, data in {"train": drawn.train, "validation": drawn.validation}.items():
        assert len(data) == 20
        with torch.no_grad():
            predictions = objective.module(data.arrays["inputs"])[:, 0]
        targets, sample_weight = data.arrays["targets"].numpy(), data.arrays["weights"].numpy()
        expected = r2_score(targets, predictions.numpy(), sample_weight=sample_weight)
        assert surfaces[side].value(weights, side).metrics["r2"] == pytest.approx(expected, rel=1e-5)


def test_balanced_class_weights_follow_from_all_training_examples(tmp_path: Path):
    labels = np.repeat([0, 1], [45, 15])
    images = np.random.default_rng(0).integers(0, 256, (60, 1, 2, 2)).astype(np.uint8)
    data = image_data(images, labels, images[:20], labels[20:40], ("a", "b"))
    run = train_linear(tmp_path, data, ClassificationConfig(class_weights="balanced"))
    drawn = draw_examples(data, AnalysisConfig(examples=10, seed=1))
    assert labels_of(drawn.train).mean() != 0.25
    weights = training_surface(run, drawn).example_weights
    assert weights == pytest.approx(np.where(labels_of(drawn.train) == 1, 60 / 30, 60 / 90), rel=1e-6)


def test_spec_of_a_job_has_its_section_and_the_examples():
    config = StudyConfig(
        name="s",
        analysis=AnalysisConfig(examples=99, seed=5),
        landscape=LandscapeConfig(points=(5, 7), settings=("bs32-lr0.01",), checkpoint="last"),
    )
    specs = Specs(config, Plan(config))
    section, examples = parse_spec(specs.analysis("landscape"), LandscapeConfig)
    assert examples == config.analysis
    # Keys that only select jobs are in no job's spec.
    assert section == LandscapeConfig(points=(5, 7), checkpoint="last")
    assert parse_spec(specs.analysis("gradient_alignment"), GradientAlignmentConfig)[0] == GradientAlignmentConfig()
    assert json.loads(specs.analysis("an analysis without a section"))["section"] == {}
