"""Training in lower precision, compared with torch's autocast in a plain loop and with float32."""

from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file
from torch import nn
from torch.nn import functional as F

from batchscape.config.run import RunSpec
from batchscape.data.prepared import PreparedData
from batchscape.errors import UserError
from batchscape.io.run_directory import RunDirectory
from batchscape.models.build import build_network
from batchscape.training import plan, recorder
from batchscape.training.checkpoint import CHECKPOINT
from batchscape.training.execution import Execution
from batchscape.training.module import TrainingModule
from batchscape.training.precision import Autocast, tf32
from batchscape.training.sampler import epoch_order
from batchscape.training.train import train
from tests.helpers.objectives import CPU, classifier
from tests.helpers.recipes import recorded
from tests.helpers.trainers import bare_trainer

STEPS, RATE = 20, 0.05


def spec_of(precision: str, normalization: str = "none", **training: Any) -> RunSpec:
    return RunSpec.model_validate(
        {
            "batch_size": 32,
            "learning_rate": RATE,
            "seed": 3,
            "model": {"name": "vgg", "channels": [4], "dense": [8], "normalization": normalization},
            "training": {
                "budget": {"steps": STEPS}, "precision": precision, "patience": None, "accelerator": "cpu",
                "evaluate_every": {"steps": 8}, **training,
            },
            "optimizer": {"name": "SGD", "arguments": {"momentum": 0.9}},
            "averaging": {"half_life": 100},
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def runs(small_data_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunDirectory]:
    """The same run in each precision."""
    folder = tmp_path_factory.mktemp("runs")
    return {
        precision: RunDirectory(train(spec_of(precision), small_data_file, folder / precision, Execution(code="code")))
        for precision in ("float32", "tf32", "bf16")
    }


def column(run: RunDirectory, name: str) -> np.ndarray:
    return pd.read_csv(run.history_file)[name].to_numpy()


def relative_distance(first: np.ndarray, second: np.ndarray, start: np.ndarray) -> float:
    return float(np.linalg.norm(first - second) / np.linalg.norm(second - start))


def test_bf16_learns_what_float32_does_up_to_rounding(runs: dict[str, RunDirectory]):
    losses = column(runs["bf16"], "train_loss")
    assert losses[-1] < 0.9 * losses[0]
    np.testing.assert_allclose(losses, column(runs["float32"], "train_loss"), rtol=0.05)
    low, full, start = runs["bf16"].weights("last"), runs["float32"].weights("last"), runs["float32"].weights("init")
    np.testing.assert_array_equal(runs["bf16"].weights("init").vector, start.vector)
    assert 1e-4 < relative_distance(low.vector, full.vector, start.vector) < 0.2


def test_bf16_equals_a_loop_with_autocast(runs: dict[str, RunDirectory], small_data: PreparedData):
    spec = spec_of("bf16")
    network = build_network(spec.model, small_data.spec, 1, spec.seed).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=RATE, momentum=0.9)
    orders = (torch.from_numpy(epoch_order(230, spec.seed, epoch)) for epoch in (1, 2, 3))
    losses = []
    for indices in [batch for order in orders for batch in order.split(32)][:STEPS]:
        batch = small_data.train.batch(indices, CPU)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            outputs = network(batch.inputs)
        loss = F.binary_cross_entropy_with_logits(outputs[:, 0].float(), batch.targets.float())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    run = runs["bf16"]
    expected = torch.nn.utils.parameters_to_vector(network.parameters()).detach().numpy()
    # Ten times closer than float32 is.
    distance = relative_distance(runs["float32"].weights("last").vector, expected, run.weights("init").vector)
    assert relative_distance(run.weights("last").vector, expected, run.weights("init").vector) < distance / 10
    sizes = ([32] * 7 + [6]) * 3
    assert column(run, "train_loss")[0] == pytest.approx(np.average(losses[:8], weights=sizes[:8]), rel=1e-4)


@pytest.mark.parametrize("normalization", ["none", "batch"])
def test_bf16_is_evaluated_in_float32(
    small_data_file: Path, small_data: PreparedData, tmp_path: Path, normalization: str
):
    spec = spec_of("bf16", normalization)
    run = RunDirectory(train(spec, small_data_file, tmp_path / "run"))
    for name, prefix in (("last", ""), ("average", "average_")):
        network = build_network(spec.model, small_data.spec, 1, 0).eval()
        state = load_file(run.weights_file(name))
        assert {array.dtype for array in state.values()} <= {np.dtype(np.float32), np.dtype(np.int64)}
        network.load_state_dict({key: torch.from_numpy(array) for key, array in state.items()})
        batch = small_data.validation.batch(slice(None), CPU)
        with torch.no_grad():
            full = F.binary_cross_entropy_with_logits(network(batch.inputs)[:, 0], batch.targets.float()).item()
            with torch.autocast("cpu", torch.bfloat16):
                outputs = network(batch.inputs)[:, 0].float()
            low = F.binary_cross_entropy_with_logits(outputs, batch.targets.float()).item()
        found = column(run, f"{prefix}validation_loss")[-1]
        assert found == pytest.approx(full, rel=1e-6)
        assert abs(low - full) > 1e-5 * full


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "SEGMENT_STEPS", 3)
    monkeypatch.setattr(recorder, "CHECKPOINT_INTERVAL", 0.0)


@pytest.mark.usefixtures("small_segments")
def test_bf16_resumes_from_float32_state_to_identical_bits(
    runs: dict[str, RunDirectory], small_data_file: Path, tmp_path: Path
):
    spec, run, execution = spec_of("bf16"), RunDirectory(tmp_path / "run"), Execution(code="code", deadline=1.0)
    stops = []
    for _ in range(4):  # a deadline in the past allows for one segment
        with pytest.raises(UserError, match="saved a checkpoint after step") as caught:
            train(spec, small_data_file, run.path, execution)
        stops.append(str(caught.value).partition("after step ")[2].partition(" ")[0])
    assert stops == ["3", "6", "8", "11"]
    state = load_file(run.checkpoint_folder / CHECKPOINT)
    kinds = {name: array.dtype for name, array in state.items() if name.startswith(("network/", "optimizer/"))}
    assert sum(name.endswith("momentum_buffer") for name in kinds) == 6
    assert set(kinds.values()) == {np.dtype(np.float32)}
    train(spec, small_data_file, run.path, Execution(code="code"))
    found, expected = recorded(run), recorded(runs["bf16"])
    # Sums over segments, of which the other run has fewer, are rounded in another order.
    exact = [name for name in expected if not name.startswith("train_")]
    assert [name for name in exact if found[name] != expected[name]] == []
    np.testing.assert_allclose(column(run, "train_loss"), column(runs["bf16"], "train_loss"), rtol=1e-12)


def test_tf32_is_float32_on_a_cpu(runs: dict[str, RunDirectory]):
    assert recorded(runs["tf32"]) == recorded(runs["float32"])


# The settings of torch.


def flags() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@pytest.fixture
def set_flags() -> Iterator[Callable[[bool, bool], None]]:
    """Set both flags; they are restored after the test."""
    before = flags()

    def change(matmul: bool, cudnn: bool) -> None:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, cudnn

    yield change
    change(*before)


@pytest.mark.parametrize("before", list(product([True, False], repeat=2)), ids=str)
@pytest.mark.parametrize("enabled", [True, False])
def test_tf32_is_set_within_a_block_and_restored_after_it(
    set_flags: Callable, before: tuple[bool, bool], enabled: bool
):
    set_flags(*before)
    with tf32(enabled):
        assert flags() == (enabled, enabled)
    assert flags() == before
    with pytest.raises(KeyError), tf32(enabled):
        raise KeyError
    assert flags() == before


@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16"])
def test_only_training_has_lower_precision(small_data: PreparedData, set_flags: Callable, precision: str):
    set_flags(True, True)
    spec = spec_of(precision)
    network = build_network(spec.model, small_data.spec, 1, 0)
    module = TrainingModule(classifier(network), small_data, spec)
    seen = set()

    def record(network: nn.Module, _: tuple) -> None:
        low = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
        seen.add((network.training, flags(), low))

    network.register_forward_pre_hook(record)  # after the calls that find out how it can be trained
    bare_trainer(1).fit(module)
    assert {each for each in seen if each[0]} == {(True, (precision == "tf32",) * 2, precision == "bf16")}
    seen.clear()
    module.validate()
    module.noise_scale()
    assert seen == {(False, (False, False), False)}


def test_autocast_returns_float32_and_computes_gradients_of_float32_weights():
    torch.manual_seed(0)
    network = nn.Linear(64, 3)
    inputs = torch.randn(5, 64)
    outputs = Autocast(network, "cpu")(inputs)
    assert outputs.dtype == torch.float32
    rounded = (inputs.bfloat16() @ network.weight.bfloat16().T).float() + network.bias
    torch.testing.assert_close(outputs, rounded, rtol=2e-2, atol=2e-2)
    assert torch.equal(outputs, outputs.bfloat16().float())
    assert not torch.equal(outputs, network(inputs))
    outputs.sum().backward()
    assert {parameter.grad.dtype for parameter in network.parameters()} == {torch.float32}
