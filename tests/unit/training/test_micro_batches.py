"""Micro-batches: the gradient of a split batch is that of the complete batch."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from batchscape.config.budget import Warmup
from batchscape.config.model import ModelConfig, ResNetConfig, VggConfig
from batchscape.config.optimizer import OptimizerConfig
from batchscape.config.run import RunSpec
from batchscape.config.schedule import ScheduleConfig
from batchscape.config.training import TrainingConfig
from batchscape.data import dataset
from batchscape.data.dataset import Batch, convert_images
from batchscape.data.prepared import PreparedData
from batchscape.models import memory as chunks
from batchscape.models.memory import max_micro_batch_size
from batchscape.tasks.compatibility import examples_are_independent
from batchscape.training.micro_batches import backward
from batchscape.training.module import DECODED_BYTES, TrainingModule
from batchscape.training.sampler import SEED_BLOCK, dropout_seeds, epoch_order
from tests.helpers.networks import build_image_network
from tests.helpers.objectives import CPU, classifier, image_dataset
from tests.helpers.trainers import bare_trainer

DEFAULT = VggConfig()
ORIGINAL = VggConfig(channels=(4, 8, 16, 32, 64), dense=(256, 256))
# An image of 8×8 takes at least 4 KiB in the networks here, so a micro-batch has only a few.
TINY_CACHE = 32 << 10


@pytest.fixture
def tiny_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(chunks.ACTIVATION_BYTES, "cpu", TINY_CACHE)


def fit(network: nn.Module, data: PreparedData, epochs: int = 1, **settings) -> TrainingModule:
    """Train a network in place; settings are a run's, or its training's."""
    run = {
        "batch_size": 32,
        "learning_rate": 0.1,
        "seed": 5,
        "optimizer": OptimizerConfig(),
        "schedule": ScheduleConfig(),
    }
    training = TrainingConfig(**{name: value for name, value in settings.items() if name not in run})
    spec = RunSpec(**{name: settings.get(name, value) for name, value in run.items()}, training=training)
    module = TrainingModule(classifier(network), data, spec)
    bare_trainer(epochs).fit(module)
    return module


def record_batch_sizes(network: nn.Module, training: bool = True) -> list[int]:
    """Return a list that collects the batch sizes of a network's calls in training (or evaluation) mode."""
    sizes = []

    def record(module: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        if module.training == training:
            sizes.append(len(inputs[0]))

    network.register_forward_pre_hook(record)
    return sizes


def network_of(model: ModelConfig = DEFAULT, outputs: int = 1) -> nn.Module:
    return build_image_network(model, (1, 8, 8), outputs, seed=2)


# The gradient.


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize(
    "part", [1, 7, 16, 32]
)  # 7 and 16 leave a short last part of 32, or of the 20 of a short batch
@pytest.mark.parametrize("count", [32, 20])
def test_gradient_over_micro_batches_equals_that_of_the_batch(outputs: int, part: int, count: int):
    torch.manual_seed(0)
    network = network_of(outputs=outputs).double()
    inputs = torch.rand(count, 1, 8, 8, dtype=torch.float64)
    labels = torch.randint(0, max(2, outputs), (count,))
    predicted = network(inputs)
    loss = (
        F.binary_cross_entropy_with_logits(predicted[:, 0], labels.double())
        if outputs == 1
        else F.cross_entropy(predicted, labels)
    )
    expected = torch.autograd.grad(loss, list(network.parameters()))
    objective, batch = classifier(network, outputs), Batch(inputs, labels)
    logits = [record.outputs for record in backward(objective, batch.split(part), count)]
    for parameter, reference in zip(network.parameters(), expected, strict=True):
        assert torch.linalg.vector_norm(parameter.grad - reference) <= 1e-12 * torch.linalg.vector_norm(reference)
    assert torch.allclose(torch.cat(logits), predicted, rtol=1e-12, atol=1e-14)
    assert not any(tensor.requires_grad for tensor in logits)  # otherwise all activations would remain in memory


@pytest.mark.usefixtures("tiny_cache")
def test_run_with_micro_batches_takes_the_same_steps(small_data: PreparedData, monkeypatch: pytest.MonkeyPatch):
    settings = {
        "epochs": 2,
        "optimizer": OptimizerConfig(arguments={"momentum": 0.9}),
        "schedule": ScheduleConfig(warmup=Warmup(epochs=1)),
    }
    split = network_of()
    sizes = record_batch_sizes(split)
    in_parts = fit(split, small_data, **settings)
    assert sizes == [4, 4, *[*[8, 8, 8, 8] * 7, 6] * 2]  # the probe for independent examples; then 230 examples, twice
    monkeypatch.setitem(chunks.ACTIVATION_BYTES, "cpu", 8 << 20)
    unsplit = network_of()
    sizes = record_batch_sizes(unsplit)
    in_one = fit(unsplit, small_data, **settings)
    assert sizes == [4, 4, *[*[32] * 7, 6] * 2]
    start = network_of().state_dict()
    for name, expected in unsplit.state_dict().items():
        moved = (expected - start[name]).norm()
        assert (split.state_dict()[name] - expected).norm() <= 1e-4 * moved, name
    assert in_parts.training_measurement().loss == pytest.approx(in_one.training_measurement().loss, rel=1e-5)
    assert in_parts.interval.update_norms.tolist() == pytest.approx(in_one.interval.update_norms.tolist(), rel=1e-4)


@pytest.mark.usefixtures("tiny_cache")
@pytest.mark.parametrize("normalization", ["none", "batch"])
def test_validation_and_noise_scale_use_chunks(small_data: PreparedData, normalization: str):
    module = fit(network_of(VggConfig(normalization=normalization)), small_data)
    sizes = record_batch_sizes(module.network, training=False)
    module.validate()
    assert sizes == [*[8] * 7, 4]  # 60 examples; running statistics are those of no batch
    sizes.clear()
    module.noise_scale()
    assert sizes == [*[8] * 28, 6]  # 230 in batches of 64


# Which batches are split, and into how many micro-batches.


class Centered(nn.Module):
    """A custom layer without state that couples the examples of a batch."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs - inputs.mean(0).detach() if self.training else inputs


@pytest.mark.parametrize(
    ("layer", "cut"),
    [
        (nn.BatchNorm2d(4), False),
        (nn.BatchNorm2d(4, track_running_stats=False), False),
        (nn.SyncBatchNorm(4), False),
        (Centered(), False),
        (nn.InstanceNorm2d(4, track_running_stats=True), False),  # its statistics would be updated once per micro-batch
        (nn.utils.parametrizations.spectral_norm(nn.Conv2d(4, 4, 1)), False),  # so would its estimate of the norm
        (nn.InstanceNorm2d(4), True),
        (nn.GroupNorm(2, 4), True),
        (nn.Dropout(), True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_batch_is_split_only_if_examples_are_independent(
    small_data: PreparedData, monkeypatch: pytest.MonkeyPatch, layer: nn.Module, cut: bool
):
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Sequential(layer), nn.Flatten(), nn.Linear(4 * 36, 1))
    before = copy.deepcopy(network.state_dict())
    module = TrainingModule(classifier(network), small_data, RunSpec(batch_size=32, learning_rate=0.1, seed=0))
    assert all(map(torch.equal, before.values(), network.state_dict().values()))
    monkeypatch.setattr("batchscape.training.module.max_micro_batch_size", lambda *_: 8)
    module.on_fit_start()
    assert module.micro_batch == (8 if cut else 32)


def test_statistics_of_weights_are_detected_before_the_first_step():
    data = image_dataset(torch.randint(256, (4, 1, 8, 8), dtype=torch.uint8), torch.arange(4) % 2)
    probe = data.batch(slice(None), CPU), data.spec
    # For a single row, the estimate of the norm is exact from the start.
    at_rest = nn.Sequential(nn.Flatten(), nn.utils.parametrizations.spectral_norm(nn.Linear(64, 1)))
    hidden = nn.Sequential(Centered(), nn.Flatten(), nn.Linear(64, 1))
    nn.init.zeros_(hidden[-1].weight)
    assert not examples_are_independent(classifier(at_rest), *probe)
    assert not examples_are_independent(classifier(hidden), *probe)
    assert examples_are_independent(classifier(hidden[1:]), *probe)


@pytest.mark.usefixtures("tiny_cache")
@pytest.mark.parametrize("model", [VggConfig(normalization="batch"), ResNetConfig(name="resnet", channels=(4, 8))])
def test_batch_norm_sees_the_complete_batch(small_data: PreparedData, model: ModelConfig):
    network, twin = network_of(model), network_of(model).to(memory_format=torch.channels_last)
    fit(network, small_data, batch_size=100)
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1)
    for indices in torch.from_numpy(epoch_order(230, 5, 1)).split(100):
        optimizer.zero_grad()
        logits = twin(small_data.train.batch(indices, CPU).inputs)[:, 0]
        F.binary_cross_entropy_with_logits(logits, small_data.train.arrays["targets"][indices].float()).backward()
        optimizer.step()
    statistics = [name for name in twin.state_dict() if name.endswith(("running_mean", "running_var"))]
    assert statistics
    for name, expected in twin.state_dict().items():
        assert torch.allclose(network.state_dict()[name], expected, rtol=1e-4, atol=1e-6), name


@pytest.mark.parametrize(
    ("model", "shape", "expected"),
    [(VggConfig(), (1, 8, 8), 2048), (ORIGINAL, (3, 128, 128), 16)],
    ids=["digits", "pets"],
)
def test_micro_batch_sizes_of_the_default_and_the_original_network(
    model: VggConfig, shape: tuple[int, int, int], expected: int
):
    # The largest operation is the first ReLU: two tensors of its channels × height × width floats, in 8 MiB.
    assert expected == (8 << 20) // (2 * model.channels[0] * shape[1] * shape[2] * 4)
    network = build_image_network(model, shape, 1, 0).eval()
    assert max_micro_batch_size(network, torch.zeros(3, *shape)) == expected
    assert not any(module._forward_hooks for module in network.modules())


def test_network_larger_than_the_cache_has_micro_batches_of_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(chunks.ACTIVATION_BYTES, "cpu", 1)
    assert max_micro_batch_size(network_of().eval(), torch.zeros(4, 1, 8, 8)) == 1


# Memory.


@pytest.mark.parametrize(
    ("side", "model", "batch_size", "images"),
    [
        (8, VggConfig(), 32, 230),  # few enough to be converted together
        (32, VggConfig(), 8, 128),  # several batches together
        (32, VggConfig(channels=(4,)), 200, 200),  # one batch, which is not split
        (32, VggConfig(channels=(128,)), 200, 8),  # a micro-batch
    ],
    ids=["all", "batches", "batch", "part"],
)
def test_images_are_converted_in_bounded_groups(
    monkeypatch: pytest.MonkeyPatch, side: int, model: VggConfig, batch_size: int, images: int
):
    converted = []

    def record_conversion(images: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        converted.append(len(images))
        return convert_images(images, dtype)

    monkeypatch.setattr(dataset, "convert_images", record_conversion)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (230, 1, side, side), dtype=np.uint8)
    labels = rng.integers(0, 2, 230)
    train, validation = image_dataset(pixels, labels), image_dataset(pixels[:4], labels[:4])
    data = PreparedData(train.spec, train, validation, None)
    fit(build_image_network(model, (1, side, side), 1, 0), data, batch_size=batch_size)
    assert converted[:4] == [4, 1, 1, 4]  # for the probes, and to see whether there are weights
    assert sum(converted[4:]) in (230, 231)  # once more for the size of an input, if batches are not split
    assert max(converted) == images
    assert images <= batch_size or images * side * side * 4 <= DECODED_BYTES


# Dropout.


DROPPING = VggConfig(dropout=0.5)


def test_dropout_depends_on_seed_and_step(small_data: PreparedData, randomness):
    randomness.seed(1)
    untouched = randomness.draws()
    network, twin = network_of(DROPPING), network_of(DROPPING).to(memory_format=torch.channels_last)
    randomness.seed(1)
    fit(network, small_data, epochs=2)
    assert randomness.draws() == untouched
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1)
    seeds = iter(dropout_seeds(5, block=0))
    for epoch in (1, 2):
        for indices in torch.from_numpy(epoch_order(230, 5, epoch)).split(32):
            torch.manual_seed(next(seeds))
            optimizer.zero_grad()
            logits = twin(small_data.train.batch(indices, CPU).inputs)[:, 0]
            F.binary_cross_entropy_with_logits(logits, small_data.train.arrays["targets"][indices].float()).backward()
            optimizer.step()
    for name, expected in twin.state_dict().items():
        assert torch.allclose(network.state_dict()[name], expected, rtol=1e-4, atol=1e-6), name


@pytest.mark.usefixtures("tiny_cache")
def test_micro_batches_with_dropout_are_reproducible(small_data: PreparedData):
    runs = []
    for state in (1, 2):
        torch.manual_seed(state)
        network = network_of(DROPPING)
        fit(network, small_data, epochs=2)
        runs.append(network.state_dict())
    assert all(torch.equal(tensor, runs[1][name]) for name, tensor in runs[0].items())


def test_dropout_seeds_differ_between_steps_seeds_and_processes():
    draws = [dropout_seeds(seed, block, rank) for seed in range(10) for block in range(10) for rank in range(4)]
    seeds = {seed for block in draws for seed in block}
    assert len(seeds) == 400 * SEED_BLOCK
    assert min(seeds) >= 0
    assert max(seeds) < 2**64
