"""Validation of custom networks, and adaptation to what they need."""

import copy
import random
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from batchscape.analysis import sharpness
from batchscape.analysis.collect import collect
from batchscape.config.budget import Budget
from batchscape.config.data.images import SyntheticConfig
from batchscape.config.model import CustomModelConfig, MlpConfig, ResNetConfig, VggConfig
from batchscape.config.optimizer import OptimizerConfig
from batchscape.config.run import RunSpec
from batchscape.config.sharpness import SharpnessConfig
from batchscape.config.task import ClassificationConfig
from batchscape.config.training import TrainingConfig
from batchscape.curvature.inference import InferenceNetwork
from batchscape.data.dataset import Batch, convert_images
from batchscape.data.prepare import prepare
from batchscape.data.prepared import PreparedData, write_prepared
from batchscape.io.run_directory import RunDirectory
from batchscape.report.figures.sharpness import draw
from batchscape.report.tables.sharpness import tabulate
from batchscape.tasks.compatibility import diagnose_hessian, probe_batch, validate_network, validate_optimizer
from batchscape.tasks.modes import enable_backward, enable_double_backward
from batchscape.training.train import train
from tests.helpers import networks
from tests.helpers.measures import CLASSIFICATION
from tests.helpers.networks import build_image_network
from tests.helpers.objectives import classifier
from tests.helpers.surfaces import image_surface, parameter_vector, synthetic_images

SHAPE = (3, 8, 8)
CPU = torch.device("cpu")


def named(kind: type) -> CustomModelConfig:
    return CustomModelConfig(name=f"{kind.__module__}:{kind.__name__}")


def built(kind: type, shape: tuple[int, int, int] = SHAPE) -> nn.Module:
    return build_image_network(named(kind), shape, 3, 0)


@pytest.fixture(scope="module")
def data() -> PreparedData:
    return prepare(SyntheticConfig(source="synthetic", images=60, image_size=SHAPE[1:], classes=3))[0]


@pytest.fixture
def batch(data: PreparedData) -> Batch:
    return probe_batch(data.train)


@pytest.fixture
def write_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], CustomModelConfig]]:
    """A function that writes a module with a network, `Net`, and returns its config."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(text: str) -> CustomModelConfig:
        sys.modules.pop("brought_net", None)
        (tmp_path / "brought_net.py").write_text(f"import torch\nfrom torch import nn\n{text}")
        return CustomModelConfig(name="brought_net:Net")

    yield write
    sys.modules.pop("brought_net", None)


# Input and memory format.


WRITING = [
    networks.WritesIntoItsInput,
    networks.WritesInTraining,
    networks.WritesThroughData,
    networks.NeedsContiguousMemoryAndWrites,
]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", WRITING)
def test_network_and_its_copies_do_not_modify_their_input(kind: type, channels: int):
    network = built(kind, (channels, 8, 8))
    inputs = convert_images(synthetic_images(5, (channels, 8, 8))[0])
    before = inputs.clone()
    for replica in (network, copy.deepcopy(network)):
        for training in (False, True):
            replica.train(training)(inputs)
            assert torch.equal(inputs, before)


class NormalisesACopy(networks.WritesIntoItsInput):
    """The same operations in the same order, without writing into the input."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers((images - 0.5) * 2)


def test_network_that_writes_into_its_input_trains_like_one_that_does_not(data: PreparedData, tmp_path: Path):
    """Small batches are converted together, so the network receives views of one tensor."""
    write_prepared(tmp_path / "data", data)
    training = TrainingConfig(budget=Budget(epochs=3), patience=3, accelerator="cpu")
    histories = []
    for kind in (networks.WritesIntoItsInput, NormalisesACopy):
        spec = RunSpec(batch_size=4, learning_rate=0.05, seed=0, model=named(kind), training=training)
        run = train(spec, tmp_path / "data", tmp_path / kind.__name__)
        histories.append(pd.read_csv(run / "history.csv").filter(regex="loss|accuracy|noise|norm"))
    assert len(histories[0].columns) >= 4
    pd.testing.assert_frame_equal(*histories, check_exact=True)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "kind", [networks.NeedsContiguousMemory, networks.ViewsItsWeights, networks.NeedsContiguousMemoryAndWrites]
)
def test_network_that_needs_contiguous_memory_gets_it(kind: type, channels: int):
    network = built(kind, (channels, 8, 8))
    images, labels = synthetic_images(5, (channels, 8, 8))
    plain = kind((channels, 8, 8), 3)
    plain.load_state_dict(network.state_dict())
    expected = plain(images / 255)
    assert torch.allclose(network(convert_images(images)), expected, atol=1e-6)
    expected.sum().backward()
    surface = image_surface(network, images, labels.long())
    gradient = surface.gradient(parameter_vector(plain))[1]
    loss = nn.functional.cross_entropy(plain(images / 255).double(), labels.long())
    expected_gradient = torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(plain.parameters()))])
    assert gradient == pytest.approx(expected_gradient.numpy(), abs=1e-6)


def test_other_networks_get_no_hooks():
    for network in (built(Plain), build_image_network(VggConfig(), SHAPE, 3, 0)):
        assert not network._forward_pre_hooks
        weights = next(module.weight for module in network.modules() if isinstance(module, nn.Conv2d))
        assert weights.is_contiguous(memory_format=torch.channels_last)
    assert all(weights.is_contiguous() for weights in built(networks.NeedsContiguousMemory).parameters())


class Plain(nn.Sequential):
    def __init__(self, image_shape: tuple[int, int, int], outputs: int):
        super().__init__(nn.Conv2d(image_shape[0], 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.append(nn.Linear(4, outputs))


def test_adapted_networks_depend_on_their_seed_only(randomness):
    randomness.seed(1)
    untouched = randomness.draws()
    randomness.seed(1)
    first = parameter_vector(built(networks.NeedsContiguousMemoryAndWrites))
    assert randomness.draws() == untouched
    with torch.random.fork_rng():
        torch.manual_seed(0)
        expected = parameter_vector(networks.NeedsContiguousMemoryAndWrites(SHAPE, 3))
    assert np.array_equal(first, expected)


TORCH_SCRIPT = """
class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution, self.head = nn.Conv2d(3, 4, 3), nn.Linear(144, 3)

    def forward(self, images):
        return self.head(torch.tanh(self.convolution(images)).flatten(1))

def Net():
    return {make}
"""


@pytest.mark.parametrize(
    "make",
    [
        "torch.jit.script(Inner())",
        "torch.jit.trace(Inner(), torch.rand(2, 3, 8, 8))",
        "nn.Sequential(torch.jit.script(Inner()), nn.ReLU())",
    ],
)
def test_torchscript_network_is_rejected(write_module: Callable, refusal: Callable, data: PreparedData, make: str):
    config = write_module(TORCH_SCRIPT.format(make=make))
    message = refusal(validate_network, config, ClassificationConfig(), 2, data)
    assert message.startswith("model.name: brought_net:Net is TorchScript, whose copies cannot be trained; return the")


WITHOUT_HOOKS = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(64, 3)

    def __call__(self, images):
        {write}
        return self.head(torch.tanh(self.two(self.one(images))).{flatten})
"""


def test_network_without_hooks_is_rejected_only_if_it_needs_one(write_module: Callable, refusal: Callable):
    def network(write: str, flatten: str) -> CustomModelConfig:
        sys.modules.pop("brought_net", None)
        return write_module(WITHOUT_HOOKS.format(write=write, flatten=flatten))

    assert build_image_network(network("images = images - 0.5", "flatten(1)"), SHAPE, 3, 0)
    message = refusal(build_image_network, network("images -= 0.5", "flatten(1)"), SHAPE, 3, 0)
    assert re.match(r"model\.name: brought_net:Net writes into its input, and a Net does not support hooks", message)
    message = refusal(build_image_network, network("images = images - 0.5", "view(-1, 64)"), SHAPE, 3, 0)
    assert re.match(
        r"model\.name: brought_net:Net does not support channels-last input, and a Net does not support hooks", message
    )


class Remembers(nn.Module):
    """Adds the hidden activations between two layers; its last layer is zero initially, which hides them."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(4, 3)
        nn.init.zeros_(self.head.weight)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = self.layers[0](images)
        return self.head((self.layers[1](hidden) + hidden).mean((2, 3)))


def test_zero_weights_do_not_hide_errors_of_a_fused_network(batch: Batch):
    network = Remembers().eval()
    inference = InferenceNetwork(network, batch.inputs)
    for module in (network, inference.module):
        with torch.no_grad():
            module.head.weight.fill_(1.0)
    with torch.inference_mode():
        inputs = batch.inputs
        assert torch.allclose(inference(inference.inputs(inputs)), network(inputs), atol=1e-5)


class DrawsElsewhere(networks.WritesIntoItsInput):
    """Draws weights from NumPy, and noise and stochastic depth from Python."""

    def __init__(self, image_shape: tuple[int, int, int], outputs: int):
        super().__init__(image_shape, outputs)
        weights = np.random.standard_normal(self.layers[3].weight.shape)  # noqa: NPY002
        self.layers[3].weight.data.copy_(torch.from_numpy(weights))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.training:
            images = images + 0.1 * random.random()
        return self.layers(images)


def test_draws_from_python_and_numpy_depend_on_the_seed(data: PreparedData, tmp_path: Path, randomness):
    write_prepared(tmp_path / "data", data)
    training = TrainingConfig(budget=Budget(epochs=3), patience=3, accelerator="cpu")
    weights = []
    for attempt, seed in enumerate((0, 0, 1)):
        randomness.seed(attempt)
        spec = RunSpec(batch_size=8, learning_rate=0.05, seed=seed, model=named(DrawsElsewhere), training=training)
        run = RunDirectory(train(spec, tmp_path / "data", tmp_path / str(attempt)))
        weights.append((run.weights("init").vector, run.weights("last").vector))
    for one, same, other in zip(*weights, strict=True):
        assert np.array_equal(one, same)
        assert not np.array_equal(one, other)


# Second derivatives.


COMMON = [
    VggConfig(),
    VggConfig(channels=(4, 4), normalization="batch"),
    MlpConfig(name="mlp"),
    ResNetConfig(name="resnet", channels=(4, 8), blocks=2, normalization="group"),
    *map(
        named,
        (networks.HasAttention, networks.HasLstm, networks.NeedsContiguousMemoryAndWrites, networks.ViewsItsWeights),
    ),
]


@pytest.mark.parametrize("config", COMMON, ids=str)
def test_networks_with_second_derivatives_are_accepted(config, batch: Batch):
    assert diagnose_hessian(classifier(build_image_network(config, SHAPE, 3, 0), 3), batch) == ""


class Padded(nn.Module):
    """Looks up rows of an embedding, of which one is for padding, also in the output layer."""

    def __init__(self, outputs: int):
        super().__init__()
        self.table = nn.Embedding(3, 4, padding_idx=-1)
        self.head = nn.Linear(4, outputs)
        nn.init.normal_(self.table.weight)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(self.table((2.99 * images).long())).mean((1, 2, 3))
        return self.head(hidden) + hidden @ self.table.weight.mT


def test_padding_of_an_embedding_is_no_missing_second_derivative(batch: Batch):
    assert (batch.inputs > 2 / 2.99).any()
    assert diagnose_hessian(classifier(built(Padded), 3), batch) == ""


class ZeroHead(networks.OnceDifferentiable):
    """Its output does not depend on anything before the last layer while that is zero."""

    def __init__(self, image_shape: tuple[int, int, int], outputs: int):
        super().__init__(image_shape, outputs)
        nn.init.zeros_(self.layers[3].weight)


class Raises(networks.OnceDifferentiable):
    """torch has no second derivative of some operations of its own, and says so."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers[3](_Refused.apply(self.layers[:3](images)))


class _Refused(torch.autograd.Function):
    @staticmethod
    def forward(context: object, values: torch.Tensor) -> torch.Tensor:
        context.save_for_backward(values)
        return values.square()

    @staticmethod
    def backward(context: object, gradient: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled():
            raise RuntimeError("derivative for refused_backward is not implemented")
        return 2 * context.saved_tensors[0] * gradient


@pytest.mark.parametrize("kind", [networks.OnceDifferentiable, ZeroHead, Raises])
def test_network_without_second_derivatives_is_detected(kind: type, batch: Batch):
    network = built(kind)
    before = parameter_vector(network)
    fault = diagnose_hessian(classifier(network, 3), batch)
    assert fault
    assert fault.splitlines() == [fault]
    assert np.array_equal(parameter_vector(network), before)
    assert all(parameter.grad is None for parameter in network.parameters())


class Starved(nn.Module):
    """Runs out of memory, as on a GPU that another process fills, in float32 or in float64."""

    dtype = torch.float32

    def __init__(self, image_shape: tuple[int, int, int], outputs: int):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.LazyLinear(outputs))
        self.layers(torch.zeros(1, *image_shape))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if images.dtype == self.dtype:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return self.layers(images)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_out_of_memory_is_not_a_missing_second_derivative(
    batch: Batch, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
):
    network = built(networks.OnceDifferentiable)
    starved = Starved(SHAPE, 3)
    monkeypatch.setattr(Starved, "dtype", dtype)
    with pytest.raises(torch.OutOfMemoryError):
        diagnose_hessian(classifier(starved, 3), batch)
    assert diagnose_hessian(classifier(network, 3), batch)


class HalfWay(nn.Module):
    """Always computes in float32, so that float64 differences of gradients are meaningless."""

    def __init__(self, image_shape: tuple[int, int, int], outputs: int):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(image_shape[0], 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU())
        self.head = nn.Linear(8, outputs)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(images).mean((2, 3))).float()


class SingleOnly(HalfWay):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(
            self.layers(images).mean((2, 3)) + torch.zeros(len(images), 8, dtype=torch.float32) @ torch.eye(8)
        )


@pytest.mark.parametrize("kind", [HalfWay, SingleOnly])
def test_network_of_fixed_precision_is_accepted(kind: type, batch: Batch):
    assert diagnose_hessian(classifier(built(kind), 3), batch) == ""


def test_recurrent_layers_are_differentiated_without_cudnn():
    assert torch.backends.cudnn.enabled
    for context in (enable_backward, enable_double_backward):
        with context(built(networks.HasLstm)):
            assert not torch.backends.cudnn.enabled
        assert torch.backends.cudnn.enabled
        with context(built(Plain)):
            assert torch.backends.cudnn.enabled
    with enable_double_backward(built(networks.HasAttention)):
        assert not torch.backends.cuda.flash_sdp_enabled()
    assert torch.backends.cuda.flash_sdp_enabled()


def test_only_the_hessian_is_left_out_for_a_network_without_one(data: PreparedData, tmp_path: Path):
    write_prepared(tmp_path / "data", data)
    training = TrainingConfig(budget=Budget(epochs=2), patience=2, accelerator="cpu")
    runs = []
    for size, seed in ((8, 0), (8, 1), (24, 0), (24, 1)):
        spec = RunSpec(
            batch_size=size, learning_rate=0.05, seed=seed, model=named(networks.OnceDifferentiable), training=training
        )
        runs.append(train(spec, tmp_path / "data", tmp_path / f"bs{size}-lr0.05-seed{seed}"))
    config = SharpnessConfig(subspace_dimension=4, iterations=2, trace_matvecs=3)
    rows = collect(runs, lambda run: sharpness.analyze(run, data, config))
    hessian = rows["measure"].str.startswith("hessian")
    assert rows.loc[hessian, "value"].isna().all()
    assert rows.loc[hessian, "not_computed"].str.startswith("an operation of the network has no second deriv").all()
    assert np.isfinite(rows.loc[~hessian, "value"]).all()
    assert rows.loc[~hessian, "not_computed"].eq("none").all()

    table = tabulate(rows)
    assert table.groupby("measure").size().loc[["hessian_eigenvalue", "hessian_trace"]].tolist() == [2, 2]
    assert table["n_not_finite"].eq(0).all()
    subtitle = " ".join(draw(rows, table, fixed_learning_rate=0.05, measures=CLASSIFICATION).labels.subtitle.split())
    assert "Not computed (Top eigenvalue (nats/unit²), Hessian trace (nats/unit²)): an operation" in subtitle
    draw(rows, table, fixed_learning_rate=0.05, measures=CLASSIFICATION).save(tmp_path / "figure.png", verbose=False)


def test_validation_reports_whether_the_hessian_can_be_computed(data: PreparedData):
    assert validate_network(named(networks.HasAttention), ClassificationConfig(), 2, data)["hessian"] == "computed"
    fault = validate_network(named(networks.OnceDifferentiable), ClassificationConfig(), 2, data)["hessian"]
    assert fault.startswith("not computed: an operation of the network has no second derivative")


# Networks that are rejected before anything trains.


LAYERS = "self.layers = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))"
NET = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        {init}

    def forward(self, images):
        {forward}
"""


@pytest.mark.parametrize(
    ("init", "forward", "expected"),
    [
        (
            f"{LAYERS}; self.layers.bfloat16()", "return self.layers(images.bfloat16()).float()",
            r"has parameters of torch\.bfloat16 \(layers\.1\.weight\); .* torch\.float32",
        ),
        (
            "self.phase = nn.Parameter(torch.zeros(192, 3, dtype=torch.cfloat))",
            "return (images.flatten(1).to(torch.cfloat) @ self.phase).abs()",
            r"has parameters of torch\.complex64 \(phase\)",
        ),
        (
            LAYERS,
            "return torch.utils.checkpoint.checkpoint(self.layers, images.requires_grad_(), use_reentrant=True)",
            r"has another gradient with torch\.autograd\.grad, .* `use_reentrant=False`",
        ),
        (
            LAYERS,
            "hidden = self.layers(images).exp(); outputs = hidden * 1; hidden += self.training; return outputs",
            r"cannot be differentiated in training mode: RuntimeError: .* inplace operation",
        ),
        (
            "self.table, self.head = nn.Embedding(2, 4, sparse=True), nn.Linear(768, 3)",
            "return self.head(self.table((images > 0.5).long()).flatten(1))",
            r"has sparse gradients \(table\.weight\), .* write `sparse=False` in the embedding",
        ),
        (
            f"{LAYERS}; self.register_buffer('scale', torch.ones(3, dtype=torch.bfloat16))",
            "return self.layers(images) * self.scale.float()",
            r"cannot be saved: scale in its state_dict is torch\.bfloat16; make it a tensor of another type",
        ),
        (
            LAYERS,
            "return self.layers(images)\n\n    def get_extra_state(self):\n        return {}",
            r"cannot be saved: _extra_state in its state_dict is a dict; make it a tensor",
        ),
    ],
    ids=["bfloat16", "complex", "checkpoint", "in place", "sparse", "bfloat16 buffer", "extra state"],
)  # fmt: skip
def test_network_that_would_fail_later_raises_a_one_line_error(
    write_module: Callable, refusal: Callable, data: PreparedData, init: str, forward: str, expected: str
):
    config = write_module("import torch.utils.checkpoint\n" + NET.format(init=init, forward=forward))
    message = refusal(validate_network, config, ClassificationConfig(), 2, data)
    assert re.match(r"model\.name: brought_net:Net " + expected, message), message


def test_network_is_validated_on_the_training_device(write_module: Callable, refusal: Callable, data: PreparedData):
    """`meta` substitutes for a GPU: like any other device, it rejects tensors of the CPU."""
    there = torch.device("meta")
    config = write_module(NET.format(init=LAYERS, forward="return self.layers(images) + torch.zeros(len(images), 3)"))
    assert validate_network(config, ClassificationConfig(), 2, data)["parameters"] == 193 * 3
    message = refusal(validate_network, config, ClassificationConfig(), 2, data, there)
    assert re.match(r"model\.name: brought_net:Net cannot take inputs of shape \(3, 8, 8\): .* device", message)


class KeepsItsWeights(networks.WritesIntoItsInput):
    """Standardizes its weights, in evaluation mode only once."""

    cached = None

    def train(self, mode: bool = True) -> nn.Module:
        self.cached = None
        return super().train(mode)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        weights = self.layers[1].weight if self.cached is None else self.cached
        if self.cached is None:
            weights = (weights - weights.mean(1, keepdim=True)) / weights.std(1, keepdim=True)
            self.cached = None if self.training else weights.detach()
        return self.layers[2:](nn.functional.linear(images.flatten(1), weights, self.layers[1].bias))


class Merges(networks.WritesIntoItsInput):
    """Adds one weight to another for evaluation, as low-rank adapters do."""

    def __init__(self, image_shape: tuple[int, int, int], outputs: int):
        super().__init__(image_shape, outputs)
        self.adapter = nn.Parameter(torch.zeros_like(self.layers[1].weight))
        self.merged = False

    def train(self, mode: bool = True) -> nn.Module:
        if self.merged == mode:
            self.layers[1].weight.data += -self.adapter if mode else self.adapter
            self.merged = not mode
        return super().train(mode)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = self.layers[:2](images)
        if not self.merged:
            hidden = hidden + nn.functional.linear(images.flatten(1), self.adapter)
        return self.layers[2:](hidden)


@pytest.mark.parametrize("kind", [KeepsItsWeights, Merges])
def test_network_that_caches_weights_in_evaluation_is_rejected(kind: type, refusal: Callable, data: PreparedData):
    message = refusal(validate_network, named(kind), ClassificationConfig(), 2, data)
    assert re.match(r"model\.name: \S+ reuses, in evaluation mode, results computed from earlier weights", message)


class Hooked(networks.WritesIntoItsInput):
    """Stores the output of a layer with a hook that refers to the network, so that a copy writes into the original."""

    def __init__(self, image_shape: tuple[int, int, int], outputs: int):
        super().__init__(image_shape, outputs)
        self.cached = {"hidden": torch.zeros(1, 8)}
        self.layers[1].register_forward_hook(lambda _, __, hidden: self.cached.update(hidden=hidden.detach()))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images) + self.layers[3](self.cached["hidden"].mean(0))


class ReusesItsOutput(networks.WritesIntoItsInput):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        outputs = self.layers(images)
        if torch.is_grad_enabled():
            return outputs
        if not hasattr(self, "memory"):
            self.memory = torch.empty(1000, outputs.shape[1])
        return self.memory[: len(outputs)].copy_(outputs)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (Hooked, r"model\.name: \S+ returns other outputs after copy\.deepcopy"),
        (ReusesItsOutput, r"model\.name: \S+ overwrites the outputs of its previous call"),
    ],
)
def test_network_that_would_silently_give_wrong_numbers_is_rejected(
    kind: type, expected: str, refusal: Callable, data: PreparedData
):
    message = refusal(validate_network, named(kind), ClassificationConfig(), 2, data)
    assert re.match(expected, message), message


HIDDEN = "self.hidden, self.head = nn.Linear(192, 8), nn.Linear(8, 3)"
STATES = {
    "a buffer that is not persistent": (
        "self.register_buffer('mean', torch.zeros(8), persistent=False)",
        "if self.training: self.mean = 0.9 * self.mean + 0.1 * hidden.detach().mean(0)\n"
        "        hidden = hidden - self.mean",
    ),
    "a counter": (
        "self.calls = 0",
        "self.calls += self.training\n        hidden = hidden * (1 + self.training / (1 + self.calls))",
    ),
    "a generator": (
        "self.generator = torch.Generator()",
        "hidden = hidden + self.training * torch.rand(8, generator=self.generator)",
    ),
}
KEPT = {
    "a persistent buffer": (
        "self.register_buffer('calls', torch.zeros(()))",
        "self.calls += self.training\n        hidden = hidden * (1 + self.training / (1 + self.calls))",
    ),
    "a constant of the first pass": (
        "self.scale = None",
        "self.scale = torch.linspace(1, 2, 8) if self.scale is None else self.scale\n"
        "        hidden = hidden * self.scale",
    ),
    "a counter without effect": ("self.calls = 0", "self.calls += 1"),
    "dropout": ("", "hidden = nn.functional.dropout(hidden, 0.5, self.training)"),
    "random depth": ("", "if not self.training or random.random() < 0.5: hidden = torch.tanh(hidden)"),
    "spectral norm": ("self.hidden = nn.utils.parametrizations.spectral_norm(self.hidden)", ""),
    "weight norm": ("self.hidden = nn.utils.parametrizations.weight_norm(self.hidden)", ""),
    "BatchNorm": ("self.norm = nn.BatchNorm1d(8, momentum=None)", "hidden = self.norm(hidden)"),
    "InstanceNorm": (
        "self.norm = nn.InstanceNorm1d(2, track_running_stats=True)",
        "hidden = self.norm(hidden.reshape(-1, 2, 4)).flatten(1)",
    ),
}


def stateful(write_module: Callable, init: str, step: str) -> CustomModelConfig:
    forward = f"hidden = torch.relu(self.hidden(images.flatten(1)))\n        {step}\n        return self.head(hidden)"
    return write_module("import random\n" + NET.format(init=f"{HIDDEN}\n        {init}", forward=forward))


@pytest.mark.parametrize(("init", "step"), STATES.values(), ids=STATES)
def test_network_with_state_that_is_not_saved_is_rejected(
    write_module: Callable, refusal: Callable, data: PreparedData, init: str, step: str
):
    config = stateful(write_module, init, step)
    message = refusal(validate_network, config, ClassificationConfig(), 2, data)
    assert message.startswith("model.name: brought_net:Net has state that passes in training mode change, and that")
    assert message.endswith("keep such state in persistent buffers (`self.register_buffer`)")


@pytest.mark.parametrize(("init", "step"), KEPT.values(), ids=KEPT)
def test_network_with_state_that_is_saved_is_accepted(write_module: Callable, data: PreparedData, init: str, step: str):
    assert validate_network(stateful(write_module, init, step), ClassificationConfig(), 2, data)["parameters"] > 0


def test_network_that_gets_buffers_in_training_is_rejected(
    write_module: Callable, refusal: Callable, data: PreparedData
):
    step = "if self.training and not hasattr(self, 'late'): self.register_buffer('late', torch.zeros(1))"
    message = refusal(validate_network, stateful(write_module, "", step), ClassificationConfig(), 2, data)
    assert "brought_net:Net cannot be saved and loaded after a pass in training mode: RuntimeError: " in message
    assert '"late"' in message and message.endswith("parameters and buffers in `__init__`, with their final shapes")


@pytest.mark.parametrize(
    ("init", "step"),
    [
        (
            "self.table = nn.Embedding(3, 8, max_norm=5.0); nn.init.zeros_(self.table.weight)",
            "hidden = hidden + self.table((2.99 * images).long()).mean((1, 2, 3))",
        ),
        (
            "self.scale = nn.Parameter(torch.ones(8))",
            "self.scale.data.clamp_(0, 2)\n        hidden = hidden * self.scale",
        ),
    ],
    ids=["max_norm", "clamp"],
)
def test_network_that_changes_its_weights_in_evaluation_is_rejected(
    write_module: Callable, refusal: Callable, data: PreparedData, init: str, step: str
):
    config = stateful(write_module, init, step)
    message = refusal(validate_network, config, ClassificationConfig(), 2, data)
    assert re.match(
        r"model\.name: brought_net:Net changes its weights \((table\.weight|scale)\) in evaluation", message
    )


def test_compiled_network_is_rejected(write_module: Callable, refusal: Callable, data: PreparedData):
    config = write_module(
        "class Net(nn.Sequential):\n    def __init__(self):\n"
        "        super().__init__(nn.Flatten(), torch.compile(nn.Linear(192, 3), backend='eager'))"
    )
    assert "is compiled by torch.compile" in refusal(validate_network, config, ClassificationConfig(), 2, data)


LIGHTNING = """
import pytorch_lightning as pl

class Lit(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))

    def forward(self, images):
        return self.layers(images)

class Trained:
    def training_step(self, batch, index):
        return nn.functional.mse_loss(self(batch[0]), batch[1])

class Net({bases}):
    {body}
"""


@pytest.mark.parametrize("package", ["pytorch_lightning", "lightning.pytorch"])
@pytest.mark.parametrize("bases", ["Lit", "Trained, Lit"])
def test_lightning_module_with_its_own_loss_needs_it_to_be_named(
    write_module: Callable, refusal: Callable, data: PreparedData, package: str, bases: str
):
    text = LIGHTNING.format(bases=bases, body="pass")
    if package == "lightning.pytorch":  # not installed here; it has the same class
        text = text.replace(
            "import pytorch_lightning as pl",
            "class LightningModule(nn.Module):\n    pass\nLightningModule.__module__ = 'lightning.pytorch.core.module'",
        ).replace("pl.LightningModule", "LightningModule")
    config = write_module(text)
    if bases == "Lit":
        assert validate_network(config, ClassificationConfig(), 2, data)["parameters"] == 193 * 3
    else:
        assert refusal(validate_network, config, ClassificationConfig(), 2, data) == (
            "task.loss: brought_net:Net is a LightningModule with a loss of its own, training_step; write "
            "`task: {loss: module}` to train with it, or name a class or function that returns only its network"
        )


def test_lightning_module_with_an_optimizer_needs_one_to_be_named(
    write_module: Callable, refusal: Callable, data: PreparedData
):
    body = "def configure_optimizers(self): return torch.optim.AdamW(self.parameters())"
    config = write_module(LIGHTNING.format(bases="Lit", body=body))
    arguments = config, ClassificationConfig(), data
    message = refusal(validate_optimizer, OptimizerConfig(), *arguments, is_named=False)
    assert message.startswith(
        "optimizer.name: brought_net:Net has an optimizer of its own, configure_optimizers; write"
    )
    for name in ("SGD", "module"):
        validate_optimizer(OptimizerConfig(name=name), *arguments, is_named=True)
    config = write_module(LIGHTNING.format(bases="Lit", body="pass"))
    validate_optimizer(OptimizerConfig(), config, ClassificationConfig(), data, is_named=False)


def test_optimizer_is_validated_with_the_network(refusal: Callable, data: PreparedData):
    arguments = VggConfig(channels=(4, 4)), ClassificationConfig(), data
    for name in ("SGD", "AdamW", "Adafactor"):
        validate_optimizer(OptimizerConfig(name=name), *arguments)
    message = refusal(validate_optimizer, OptimizerConfig(name="Adam", arguments={"eps": -1}), *arguments)
    assert message.startswith("optimizer.arguments.eps: Adam refuses -1: ")
    if hasattr(torch.optim, "Muon"):
        message = refusal(validate_optimizer, OptimizerConfig(name="Muon"), *arguments)
        assert message.startswith("optimizer.name: Muon cannot be constructed: ValueError: Muon only supports 2D")
