"""`verify`: what holds for a good network, and what a broken one breaks, by training with it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from batchscape.config.data.arrays import CustomDataConfig
from batchscape.config.run import RunSpec
from batchscape.data.prepare import prepare
from batchscape.data.prepared import PreparedData
from batchscape.io.run_directory import RunDirectory
from batchscape.training.verify import (
    FAILS,
    HOLDS,
    NOT_CHECKED,
    Finding,
    measure_throughput,
    select_examples,
    verify,
)

NAMES = [
    "network and loss",
    "second derivatives",
    "optimizer state",
    "micro-batches equal the complete batch",
    "a resumed run is exact",
    "two processes equal one",
]


@pytest.fixture(scope="module")
def data() -> PreparedData:
    return prepare(CustomDataConfig(source="tests.helpers.lightning:MnistLike")).data


def spec_of(name: str, batch_size: int = 16, loss: str = "module", **sections: object) -> RunSpec:
    values = {
        "batch_size": batch_size,
        "learning_rate": 0.01,
        "seed": 0,
        "model": {"name": name if ":" in name else f"tests.helpers.lightning:{name}"},
        "task": {"name": "classification", "loss": loss},
        "optimizer": {"name": "module"},
        "training": {"budget": {"epochs": 50}, "accelerator": "cpu"},
        "schedule": {"decay": "cosine", "warmup": {"epochs": 1}},
    }
    return RunSpec.model_validate({**values, **sections})


def findings_of(spec: RunSpec, data: PreparedData, folder: Path) -> dict[str, Finding]:
    return {finding.name: finding for finding in verify(spec, data, folder, spec.batch_size)}


def test_all_holds_for_a_module_that_keeps_the_contract(data: PreparedData, tmp_path: Path):
    found = findings_of(spec_of("LitClassifier"), data, tmp_path)
    assert [(name, finding.status) for name, finding in found.items()] == [(name, HOLDS) for name in NAMES]
    # Half the budget of six steps is in a checkpoint: the run has stopped there and continued.
    assert "stopped after step 2 of 6, weights and steps have the same bits" in found[NAMES[4]].detail


def test_probes_have_a_complete_batch(data: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("batchscape.training.verify.MAX_EXAMPLES", 10)
    found = findings_of(spec_of("LitClassifier", batch_size=40), data, tmp_path)
    assert {finding.status for finding in found.values()} == {HOLDS}


def test_couplings_and_missing_derivatives_are_named(data: PreparedData, tmp_path: Path):
    coupled = findings_of(spec_of("LitBatchNorm", batch_size=1), data, tmp_path / "one")
    assert coupled[NAMES[3]].status == NOT_CHECKED and "as BatchNorm does" in coupled[NAMES[3]].detail
    # A batch of one cannot train with BatchNorm.
    assert (
        coupled[NAMES[4]].status == FAILS and "grid.batch_sizes: 1 leaves a batch with one" in coupled[NAMES[4]].detail
    )
    assert coupled[NAMES[5]].status == NOT_CHECKED


def test_loss_that_compares_examples_does_not_hold(data: PreparedData, tmp_path: Path):
    found = findings_of(spec_of("LitContrastive"), data, tmp_path)
    assert found[NAMES[0]].status == FAILS and found[NAMES[0]].is_required
    assert "is not a mean over examples" in found[NAMES[0]].detail
    assert {found[name].status for name in NAMES[3:]} == {NOT_CHECKED}
    assert list(tmp_path.iterdir()) == []


def test_missing_second_derivatives_are_no_failure(data: PreparedData, tmp_path: Path):
    spec = spec_of("LitOnceDifferentiable", batch_size=1, optimizer={"name": "SGD"})
    found = findings_of(spec, data, tmp_path)
    assert (found[NAMES[1]].status, found[NAMES[1]].is_required) == (FAILS, False)
    assert "an operation of the network has no second derivative" in found[NAMES[1]].detail
    assert {found[name].status for name in (NAMES[0], *NAMES[2:5])} == {HOLDS}
    assert found[NAMES[5]].detail == "a batch of one example has one process"


def test_optimizer_that_loses_state_does_not_hold(write_module: Callable, data: PreparedData, tmp_path: Path):
    write_module(
        "my_optimizer.py",
        "import torch\nclass Forgetful(torch.optim.SGD):\n    count = 0\n    def step(self):\n        self.count += 1\n"
        "        for group in self.param_groups:\n            group['lr'] /= self.count\n        super().step()\n",
    )
    spec = spec_of("Network", loss="cross_entropy", optimizer={"name": "my_optimizer:Forgetful"})
    found = findings_of(spec, data, tmp_path)
    assert found[NAMES[2]].status == FAILS
    assert "a run with my_optimizer:Forgetful cannot resume: its attribute" in found[NAMES[2]].detail
    assert {found[name].status for name in NAMES[3:]} == {NOT_CHECKED}


def test_throughput_is_that_of_the_batch_size(data: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("batchscape.training.verify.SECONDS", 0.05)
    found = measure_throughput(spec_of("LitClassifier", batch_size=64), data, tmp_path)
    assert (found.batch_size, found.micro_batch) == (64, 64)
    assert found.examples_per_second > 0
    # At least the inputs of the first layer are saved.
    assert found.saved_bytes > 64 * 784 * 4


def test_throughput_counts_the_examples_of_short_batches(
    data: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("batchscape.training.verify.SECONDS", 0.01)  # two steps are an epoch
    found = measure_throughput(spec_of("LitClassifier", batch_size=100), data, tmp_path)
    warm_up, timed = RunDirectory(tmp_path / "timed").history(["step", "examples", "train_seconds"]).to_numpy()
    steps, examples, _ = timed - warm_up
    assert len(data.train) == 168 and 68 <= examples < 100 * steps
    assert found.examples_per_second == pytest.approx(examples / timed[2])


def test_memory_of_the_backward_pass_is_that_of_the_precision(
    data: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("batchscape.training.verify.SECONDS", 0.01)
    saved = {}
    for precision in ("float32", "bf16"):
        spec = spec_of(
            "LitClassifier", training={"budget": {"epochs": 1}, "accelerator": "cpu", "precision": precision}
        )
        saved[precision] = measure_throughput(spec, data, tmp_path / precision).saved_bytes
    assert saved["bf16"] < saved["float32"]


def test_selected_examples_are_spread_over_the_data(data: PreparedData):
    selected = select_examples(data, 5)
    assert (len(selected.train), len(selected.validation), selected.test) == (5, 5, None)
    rows = torch.tensor([0, 41, 83, 125, 167])
    assert torch.equal(selected.train.arrays["targets"], data.train.arrays["targets"][rows])
