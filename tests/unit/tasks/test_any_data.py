"""Training and all analyses of the loss, with the built-in networks on data that is no images."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from batchscape.analysis import gradient_alignment, interpolation, landscape, sharpness, trajectory
from batchscape.analysis.surfaces import validation_surface
from batchscape.config.budget import Budget
from batchscape.config.gradient_alignment import GradientAlignmentConfig
from batchscape.config.interpolation import InterpolationConfig
from batchscape.config.landscape import LandscapeConfig
from batchscape.config.model import MlpConfig, ModelConfig, TransformerConfig
from batchscape.config.run import RunSpec
from batchscape.config.sharpness import SharpnessConfig
from batchscape.config.task import ClassificationConfig, LanguageModelConfig, RegressionConfig, TaskConfig
from batchscape.config.training import TrainingConfig
from batchscape.config.trajectory import TrajectoryConfig
from batchscape.data.dataset import Dataset
from batchscape.data.prepared import PreparedData, write_prepared
from batchscape.data.spec import DataSpec
from batchscape.io.run_directory import RunDirectory
from batchscape.tasks.compatibility import validate_network
from batchscape.training.train import train

LENGTH, VOCABULARY = 12, 20


def text(generator: np.random.Generator, count: int) -> Dataset:
    """Tokens that mostly rise, with weights of which some are zero, as of padding."""
    spec = DataSpec("tokens", (LENGTH,), "next_token", vocabulary=VOCABULARY, token_unit="byte")
    steps = generator.integers(0, 3, (count, LENGTH + 1))
    tokens = (steps.cumsum(1) % VOCABULARY).astype(np.uint8)
    weights = (generator.random((count, LENGTH)) > 0.2).astype(np.float32)
    return Dataset.from_numpy(spec, {"inputs": tokens, "weights": weights})


def labeled_text(generator: np.random.Generator, count: int) -> Dataset:
    spec = DataSpec("tokens", (LENGTH,), "class", ("a", "b", "c"), vocabulary=VOCABULARY)
    tokens = generator.integers(0, VOCABULARY, (count, LENGTH)).astype(np.int16)
    return Dataset.from_numpy(spec, {"inputs": tokens, "targets": (tokens[:, 0] % 3).astype(np.int64)})


def series(generator: np.random.Generator, count: int) -> Dataset:
    spec = DataSpec("numbers", (LENGTH, 2), "numbers", target_shape=(2,))
    values = generator.normal(size=(count, LENGTH, 2)).astype(np.float32)
    return Dataset.from_numpy(spec, {"inputs": values, "targets": values.mean(1)})


def table(generator: np.random.Generator, count: int) -> Dataset:
    spec = DataSpec("columns", (3,), "numbers", categories=(3, 5))
    numbers = generator.normal(size=(count, 3)).astype(np.float32)
    categories = generator.integers(0, (3, 5), (count, 2)).astype(np.int32)
    targets = (numbers.sum(1) + categories[:, 0]).astype(np.float32)
    return Dataset.from_numpy(spec, {"inputs": numbers, "categories": categories, "targets": targets})


TRANSFORMER = TransformerConfig(name="transformer", width=8, heads=2, dropout=0.1)
CASES: dict[str, tuple[ModelConfig, TaskConfig, Callable]] = {
    "text": (TRANSFORMER, LanguageModelConfig(name="language_model"), text),
    "labeled text": (TRANSFORMER, ClassificationConfig(), labeled_text),
    "series": (TRANSFORMER, RegressionConfig(name="regression"), series),
    "table": (MlpConfig(name="mlp", dense=(8,)), RegressionConfig(name="regression", loss="huber"), table),
}


@pytest.fixture(scope="module", params=CASES)
def trained(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[RunDirectory], PreparedData]:
    """Two short runs, and their data."""
    folder: Path = tmp_path_factory.mktemp("runs")
    model, task, make = CASES[request.param]
    sides = [make(np.random.default_rng(seed), count) for seed, count in enumerate((90, 30))]
    data = PreparedData(sides[0].spec, *sides, None)
    assert validate_network(model, task, 32, data)["hessian"] == "computed"
    write_prepared(folder / "data", data)
    training = TrainingConfig(budget=Budget(epochs=3), patience=3, checkpoints=(1, 2), accelerator="cpu")
    specs = [
        RunSpec(batch_size=size, learning_rate=0.05, seed=0, model=model, task=task, training=training)
        for size in (8, 32)
    ]
    return [RunDirectory(train(spec, folder / "data", folder / f"bs{spec.batch_size}")) for spec in specs], data


def test_surface_at_saved_weights_equals_the_recorded_loss(trained: tuple[list[RunDirectory], PreparedData]):
    runs, data = trained
    for run in runs:
        value = validation_surface(run, data).value(run.weights("best").vector)
        assert value.loss == pytest.approx(run.summary()["best_validation_loss"], rel=1e-5)


def test_every_analysis_has_finite_rows(trained: tuple[list[RunDirectory], PreparedData]):
    runs, data = trained
    small = SharpnessConfig(subspace_dimension=4, iterations=2, random_starts=1, trace_matvecs=3)
    columns = [
        sharpness.analyze(runs[0], data, small)["value"],
        interpolation.analyze(*runs, data, InterpolationConfig(points=3))["train_loss"],
        landscape.analyze(runs[0], data, LandscapeConfig(points=(3, 3)), 0, 1, 1)["loss"],
        trajectory.analyze(runs[0], data, TrajectoryConfig(points=(2, 2)))["loss"],
        gradient_alignment.analyze(runs[0], data, GradientAlignmentConfig(max_batch_size=4))["gradient_norm"],
    ]
    for values in columns:
        assert len(values) > 0
        assert np.isfinite(values).all()
