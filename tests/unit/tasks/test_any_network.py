"""Training and all analyses of the loss, on networks and data that a user may bring."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import nn

from batchscape.analysis import gradient_alignment, interpolation, landscape, sharpness, trajectory
from batchscape.analysis.surfaces import training_surface, validation_surface
from batchscape.config.budget import Budget
from batchscape.config.data.images import SyntheticConfig
from batchscape.config.gradient_alignment import GradientAlignmentConfig
from batchscape.config.interpolation import InterpolationConfig
from batchscape.config.landscape import LandscapeConfig
from batchscape.config.model import CustomModelConfig, MlpConfig, ResNetConfig
from batchscape.config.run import RunSpec
from batchscape.config.sharpness import SharpnessConfig
from batchscape.config.training import TrainingConfig
from batchscape.config.trajectory import TrajectoryConfig
from batchscape.data.prepare import prepare
from batchscape.data.prepared import PreparedData, write_prepared
from batchscape.io.run_directory import RunDirectory
from batchscape.models.build import build_network
from batchscape.training.train import train
from tests.helpers.networks import (
    HasAttention,
    HasLstm,
    NeedsContiguousMemoryAndWrites,
    ViewsItsWeights,
    WritesIntoItsInput,
)
from tests.helpers.objectives import tensors_of
from tests.helpers.surfaces import evaluate, image_surface


class Odd(nn.Module):
    """A network with frozen, unused and tied parameters, a buffer, and a branch."""

    def __init__(self, image_shape: tuple[int, int, int], outputs: int):
        super().__init__()
        self.frozen = nn.Conv2d(image_shape[0], 4, 3, padding=1)
        self.frozen.requires_grad_(False)
        self.one = nn.Linear(4, 4)
        self.two = nn.Linear(4, 4)
        self.two.weight = self.one.weight
        self.unused = nn.Parameter(torch.ones(3))
        self.register_buffer("scale", torch.tensor(2.0))
        self.output = nn.Linear(4, outputs)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = self.scale * torch.tanh(self.frozen(images)).mean((2, 3))
        return self.output(torch.relu(self.one(hidden)) + self.two(hidden))


def from_timm(model: str, **arguments: Any) -> CustomModelConfig:
    """A small network of timm, with stochastic depth."""
    sizes = {"in_chans": "$channels", "num_classes": "$outputs", "drop_path_rate": 0.2}
    return CustomModelConfig(name="timm:create_model", arguments={"model_name": model} | sizes | arguments)


VIT = {"img_size": ["$height", "$width"], "patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 2}
NETWORKS = {
    # with learned scales of the residual layers
    "ViT of timm": from_timm("vit_tiny_patch16_224", **VIT, init_values=0.1),
    "ResNet of timm": from_timm("resnet10t", channels=[8, 8, 8, 8], stem_width=8),
    "ConvNeXt of timm": from_timm("convnext_atto", depths=[1, 1, 1, 1], dims=[8, 8, 8, 8], patch_size=1),
    "BatchNorm": ResNetConfig(name="resnet", channels=(4, 8)),
    "GroupNorm": ResNetConfig(name="resnet", channels=(4, 8), normalization="group"),
    "dropout": MlpConfig(name="mlp", dense=(16,), dropout=0.3),
    "odd": CustomModelConfig(name=f"{__name__}:Odd"),
    **{
        kind.__name__: CustomModelConfig(name=f"{kind.__module__}:{kind.__name__}")
        for kind in (WritesIntoItsInput, NeedsContiguousMemoryAndWrites, ViewsItsWeights, HasAttention, HasLstm)
    },
}


@pytest.fixture(scope="module")
def data() -> PreparedData:
    return prepare(SyntheticConfig(source="synthetic", images=90, image_size=(8, 8), classes=3))[0]


@pytest.fixture(scope="module", params=NETWORKS)
def pair(
    request: pytest.FixtureRequest, data: PreparedData, tmp_path_factory: pytest.TempPathFactory
) -> list[RunDirectory]:
    """Two short runs of a network."""
    folder: Path = tmp_path_factory.mktemp("runs")
    write_prepared(folder / "data", data)
    training = TrainingConfig(budget=Budget(epochs=3), patience=3, checkpoints=(1, 2), accelerator="cpu")
    specs = [
        RunSpec(batch_size=size, learning_rate=0.05, seed=0, model=NETWORKS[request.param], training=training)
        for size in (8, 32)
    ]
    return [RunDirectory(train(spec, folder / "data", folder / f"bs{spec.batch_size}")) for spec in specs]


def test_surface_at_saved_weights_equals_the_recorded_loss(pair: list[RunDirectory], data: PreparedData):
    for run in pair:
        weights, summary = run.weights("best"), run.summary()
        surface = validation_surface(run, data)
        surface.batch_norm_statistics = weights.buffers
        value = surface.value(weights.vector)
        assert value.loss == pytest.approx(summary["best_validation_loss"], rel=1e-5)
        assert value.metrics["accuracy"] == summary["validation_at_best"]["accuracy"]


def test_surface_at_saved_weights_equals_the_network(pair: list[RunDirectory], data: PreparedData):
    run = pair[0]
    spec = RunSpec.model_validate(run.summary()["spec"])
    network = build_network(spec.model, data.spec, 3, seed=7)
    state = load_file(run.weights_file("best"))
    network.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    expected = evaluate(network, *tensors_of(data.train))
    surface, weights = training_surface(run, data), run.weights("best")
    assert not torch.backends.cudnn.allow_tf32
    surface.batch_norm_statistics = weights.buffers
    value = surface.value(weights.vector)
    assert (value.loss, value.metrics["accuracy"]) == pytest.approx(expected, rel=1e-5)


def test_line_ends_at_the_losses_of_its_runs(pair: list[RunDirectory], data: PreparedData):
    """With interpolated statistics, both ends have their own."""
    config = InterpolationConfig(alpha_range=(0.0, 1.0), points=2, batch_norm="interpolate")
    losses = interpolation.analyze(*pair, data, config)["validation_loss"]
    expected = [run.summary()["best_validation_loss"] for run in pair]
    assert losses.tolist() == pytest.approx(expected, rel=1e-5)


def test_surface_gradient_is_its_slope(pair: list[RunDirectory], data: PreparedData):
    run = pair[0]
    spec = RunSpec.model_validate(run.summary()["spec"])
    network = build_network(spec.model, data.spec, 3, 0)
    weights = run.weights("best")
    images, labels = tensors_of(data.train)
    surface = image_surface(network, images, labels, dtype=torch.float64)
    surface.batch_norm_statistics = weights.buffers
    loss, gradient = surface.gradient(weights.vector)
    assert loss == pytest.approx(surface.value(weights.vector).loss, rel=1e-9)
    direction = np.random.default_rng(0).standard_normal(len(gradient))
    step = 1e-6 * direction / np.linalg.norm(direction)
    slope = (surface.value(weights.vector + step).loss - surface.value(weights.vector - step).loss) / 2
    assert gradient @ step == pytest.approx(slope, rel=1e-4, abs=1e-12)
    ahead, behind = (surface.gradient(weights.vector + sign * step)[1] for sign in (1, -1))
    product = surface.hessian_vector_product(weights.vector, step)
    assert np.linalg.norm(product - (ahead - behind) / 2) <= 1e-4 * np.linalg.norm(product)
    mean = surface.example_gradients(weights.vector, np.arange(len(surface))).mean(axis=0)
    assert mean == pytest.approx(gradient, abs=1e-9)


def test_every_analysis_has_finite_rows(pair: list[RunDirectory], data: PreparedData):
    small = SharpnessConfig(subspace_dimension=4, iterations=2, random_starts=1, trace_matvecs=3)
    columns = [
        sharpness.analyze(pair[0], data, small)["value"],
        interpolation.analyze(*pair, data, InterpolationConfig(points=3))["train_loss"],
        trajectory.analyze(pair[0], data, TrajectoryConfig(points=(2, 2)))["loss"],
        gradient_alignment.analyze(pair[0], data, GradientAlignmentConfig(max_batch_size=4))["gradient_norm"],
    ]
    for values in columns:
        assert len(values) > 0
        assert np.isfinite(values).all()


def test_landscape_is_centered_on_the_run(pair: list[RunDirectory], data: PreparedData):
    config = LandscapeConfig(points=(3, 3), batch_norm="fixed")
    rows = landscape.analyze(pair[0], data, config, 0, 1, 1)
    centre = rows[(rows["x"] == 0) & (rows["y"] == 0)]["loss"].item()
    surface, weights = training_surface(pair[0], data), pair[0].weights("best")
    surface.batch_norm_statistics = weights.buffers
    assert centre == pytest.approx(surface.value(weights.vector).loss, rel=1e-6)


def test_frozen_and_unused_parameters_stay_and_tied_ones_move_together(data: PreparedData, tmp_path: Path):
    write_prepared(tmp_path / "data", data)
    training = TrainingConfig(budget=Budget(epochs=2), patience=2)
    spec = RunSpec(batch_size=8, learning_rate=0.1, seed=1, model=NETWORKS["odd"], training=training)
    run = RunDirectory(train(spec, tmp_path / "data", tmp_path / "run"))
    before, after = run.weights("init"), run.weights("last")
    moved = {}
    position = 0
    for name, shape in before.shapes.items():
        part = slice(position, position := position + int(np.prod(shape)))
        moved[name] = not np.array_equal(before.vector[part], after.vector[part])
    still = {"frozen.weight", "frozen.bias", "unused"}
    assert {name for name, value in moved.items() if not value} == still
    assert "two.weight" not in before.shapes
    assert np.array_equal(after.buffers["two.weight"].ravel(), after.vector[_part(after.shapes, "one.weight")])


def _part(shapes: dict[str, tuple[int, ...]], name: str) -> slice:
    sizes = {key: int(np.prod(shape)) for key, shape in shapes.items()}
    start = sum(size for key, size in sizes.items() if list(sizes).index(key) < list(sizes).index(name))
    return slice(start, start + sizes[name])


def test_evaluation_with_several_outputs_equals_softmax_by_hand(data: PreparedData):
    network = build_network(MlpConfig(name="mlp", dense=(5,)), data.spec, 3, 0)
    images, labels = tensors_of(data.train)
    with torch.no_grad():
        logits = network(images / 255).double().numpy()
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    loss, accuracy = evaluate(network, images, labels)
    assert loss == pytest.approx(-np.log(shares[np.arange(len(labels)), labels]).mean(), rel=1e-6)
    assert accuracy == (shares.argmax(1) == labels.numpy()).mean()
