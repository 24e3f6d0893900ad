"""Several processes train the same run as one process, and fail and end together."""

import copy
import importlib
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from batchscape.config.budget import Budget
from batchscape.config.model import VggConfig
from batchscape.config.run import RunSpec
from batchscape.config.task import ClassificationConfig
from batchscape.config.training import TrainingConfig
from batchscape.data.prepared import write_prepared
from batchscape.io.run_directory import RunDirectory
from batchscape.training import recorder
from batchscape.training.batch_norm import GlobalBatchNorm, synchronize_batch_norm
from batchscape.training.checkpoint import CHECKPOINT
from batchscape.training.distributed import ProcessGroup
from batchscape.training.execution import Execution
from batchscape.training.launcher import launch
from batchscape.training.train import train
from tests.helpers.objectives import CPU, classifier, image_data, image_dataset
from tests.helpers.waiting import TIMEOUT, wait_for

# Covers the difficult cases of sharding: a last batch of one example, so that some shards are empty; shards of
# different sizes; BatchNorm, whose statistics are those of the global batch; a parameter without a gradient.
NETWORK = '''
import random
import numpy as np
import torch
from torch import nn
from batchscape.training import recorder

recorder.CHECKPOINT_INTERVAL = 0.0

class Exact(nn.Module):
    """Computes in float64, so that only the order of sums may differ."""

    def __init__(self, outputs, normalize: bool = False):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4) if normalize else nn.Identity()
        self.pool = nn.MaxPool2d(2)
        self.unused = nn.Linear(3, 3)
        self.head = nn.Linear(4 * 4 * 4, outputs)
        self.double()

    def forward(self, images):
        return self.head(torch.relu(self.pool(self.norm(self.conv(images.double())))).flatten(1))

class SkipsFirst(Exact):
    """Has a layer without a gradient in the first step of its segment."""

    def __init__(self, outputs):
        super().__init__(outputs)
        self.late = nn.Linear(outputs, outputs).double()
        self.initial_bias = self.head.bias.detach().sum().item()

    def forward(self, images):
        outputs = super().forward(images)
        return outputs if self.head.bias.detach().sum().item() == self.initial_bias else self.late(outputs)

class NoisySGD(torch.optim.SGD):
    @torch.no_grad()
    def step(self, closure=None):
        super().step(closure)
        for parameter in self.param_groups[0]["params"]:
            parameter += 1e-3 * (torch.randn_like(parameter) + random.gauss(0, 1) + np.random.randn())
'''


def spec(batch_size: int, epochs: int = 4, **options: object) -> RunSpec:
    return RunSpec.model_validate(
        {
            "batch_size": batch_size,
            "learning_rate": 0.1,
            "seed": 1,
            "model": {"name": "custom_exact:Exact", "arguments": options},
            "training": {
                "budget": {"epochs": epochs}, "accelerator": "cpu", "augment_flip": True,
                "augment_shift": 1, "checkpoints": [2],
            },
            "optimizer": {"arguments": {"momentum": 0.9, "weight_decay": 0.01}},
            "schedule": {"warmup": {"epochs": 2}},
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 images to train with, 31 to validate with."""
    rng = np.random.default_rng(0)
    labels = np.arange(131) % 3
    images = rng.integers(0, 256, (131, 1, 8, 8), dtype=np.uint8)
    images[labels == 1, :, 2:5] //= 3
    path = tmp_path_factory.mktemp("data") / "prepared.safetensors"
    write_prepared(path, image_data(images[:100], labels[:100], images[100:], labels[100:], ("a", "b", "c")))
    return path


@pytest.fixture(scope="module", autouse=True)
def custom_network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Put the network on the import path of this process and of those that it starts."""
    folder = tmp_path_factory.mktemp("custom")
    (folder / "custom_exact.py").write_text(NETWORK)
    with pytest.MonkeyPatch.context() as patch:
        # Undo at the end what the network's module sets: one of the runs is trained in this process.
        patch.setattr(recorder, "CHECKPOINT_INTERVAL", 0.0)
        patch.syspath_prepend(str(folder))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]))
        yield


def recorded_values(run: RunDirectory) -> dict[str, np.ndarray]:
    """Return everything that a run has recorded, except times."""
    history = pd.read_csv(run.history_file)
    weights = {name: run.weights(name) for name in ("init", "best", "last", "epoch00002")}
    return {
        "history": history[[column for column in history if "seconds" not in column]].to_numpy(),
        "update norms": run.update_norms(),
        **{name: each.vector for name, each in weights.items()},
        **{f"{name}/{buffer}": array for name, each in weights.items() for buffer, array in each.buffers.items()},
    }


@pytest.mark.parametrize(
    ("batch_size", "normalize", "class_weights", "processes"),
    [(33, True, None, (2, 3)), (3, False, None, (2,)), (33, True, {"a": 3.0}, (2,))],
    ids=str,
)
def test_any_number_of_processes_trains_the_same_run(
    data: Path, tmp_path: Path, batch_size: int, normalize: bool, class_weights: dict | None, processes: tuple[int, ...]
):
    task = ClassificationConfig(class_weights=class_weights)
    run_spec = spec(batch_size, normalize=normalize).model_copy(update={"task": task})
    alone, *shared = (
        recorded_values(RunDirectory(train(run_spec, data, tmp_path / f"of{devices}", Execution(devices=devices))))
        for devices in (1, *processes)
    )
    assert len(alone["history"]) == 4
    for values in shared:
        assert values.keys() == alone.keys()
        for name, expected in alone.items():
            np.testing.assert_allclose(values[name], expected, rtol=1e-10, atol=1e-12, err_msg=name)


def test_processes_share_the_noise_of_an_optimizer_and_layers_that_some_steps_skip(data: Path, tmp_path: Path):
    changes = {"model": {"name": "custom_exact:SkipsFirst"}, "optimizer": {"name": "custom_exact:NoisySGD"}}
    run_spec = RunSpec.model_validate({**spec(33, epochs=2).model_dump(), **changes})
    alone, shared = (
        recorded_values(RunDirectory(train(run_spec, data, tmp_path / f"of{devices}", Execution(devices=devices))))
        for devices in (1, 2)
    )
    for name, expected in alone.items():
        np.testing.assert_allclose(shared[name], expected, rtol=1e-10, atol=1e-12, err_msg=name)


def test_float32_runs_differ_only_by_rounding_and_record_their_devices(small_data_file: Path, tmp_path: Path):
    run_spec = RunSpec(
        batch_size=32,
        learning_rate=0.05,
        seed=3,
        model=VggConfig(channels=(4,), dense=(8,), normalization="batch"),
        training=TrainingConfig(budget=Budget(epochs=3), accelerator="cpu", checkpoints=(2,)),
    )
    one, two = (
        RunDirectory(train(run_spec, small_data_file, tmp_path / f"of{devices}", Execution(devices=devices)))
        for devices in (1, 2)
    )
    for (name, expected), values in zip(recorded_values(one).items(), recorded_values(two).values(), strict=True):
        np.testing.assert_allclose(values, expected, rtol=2e-4, atol=1e-5, err_msg=name)
    assert [run.summary()["environment"]["devices"] for run in (one, two)] == [1, 2]
    assert not two.checkpoint_folder.exists()


def test_batch_smaller_than_number_of_processes_raises(data: Path, tmp_path: Path, refusal: Callable):
    message = refusal(lambda: train(spec(2), data, tmp_path / "run", Execution(devices=3)))
    assert "a batch of 2 examples cannot be sharded over 3 devices" in message and "resources.devices: " in message
    assert not (tmp_path / "run").exists()


class Activated(nn.BatchNorm2d):
    """A BatchNorm with an activation, as some libraries have it."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return torch.relu(super().forward(inputs))


@pytest.mark.parametrize("layer", [Activated(4), nn.InstanceNorm2d(4, track_running_stats=True)])
def test_network_that_couples_examples_beyond_batch_norm_raises(layer: nn.Module, refusal: Callable):
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), layer)
    data = image_dataset(torch.randint(256, (4, 1, 8, 8), dtype=torch.uint8), torch.zeros(4))
    probe = data.batch(slice(None), CPU)
    message = refusal(synchronize_batch_norm, classifier(network), probe, data.spec, ProcessGroup(0, 2))
    assert message.startswith("resources.devices: ")
    assert type(network[1]) is nn.BatchNorm2d
    plain = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Sequential(nn.BatchNorm2d(4), nn.Dropout()))
    synchronize_batch_norm(classifier(plain), probe, data.spec, ProcessGroup(0, 2))
    assert type(plain[1][0]) is GlobalBatchNorm


def test_batch_norm_under_two_names_is_replaced_under_both():
    norm = nn.BatchNorm2d(4)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), norm, nn.Sequential(nn.Conv2d(4, 4, 3), norm))
    names = network.state_dict().keys()
    data = image_dataset(torch.randint(256, (4, 1, 8, 8), dtype=torch.uint8), torch.zeros(4))
    synchronize_batch_norm(classifier(network), data.batch(slice(None), CPU), data.spec, ProcessGroup(0, 2))
    assert type(network[1]) is GlobalBatchNorm
    assert network[2][1] is network[1]
    assert network.state_dict().keys() == names


class ReadsItsNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.norm(inputs) * self.norm.weight.sum()


@pytest.mark.parametrize(
    "network",
    [ReadsItsNorm(), nn.Sequential(nn.BatchNorm2d(1, affine=False)), nn.Sequential(nn.BatchNorm2d(1, bias=False))],
    ids=["reads its weights", "no weights", "no bias"],
)
def test_global_batch_norm_has_weights_and_outputs_of_the_original(network: nn.Module):
    data = image_dataset(torch.randint(256, (4, 1, 8, 8), dtype=torch.uint8), torch.zeros(4))
    probe = data.batch(slice(None), CPU)
    shared = copy.deepcopy(network)
    synchronize_batch_norm(classifier(shared), probe, data.spec, ProcessGroup())
    assert any(isinstance(layer, GlobalBatchNorm) for layer in shared.modules())
    assert [name for name, _ in shared.named_parameters()] == [name for name, _ in network.named_parameters()]
    assert torch.allclose(shared(probe.inputs), network(probe.inputs), atol=1e-6)
    assert shared.state_dict().keys() == network.state_dict().keys()
    for name, value in network.state_dict().items():
        assert torch.allclose(shared.state_dict()[name], value), name


def test_uninitialized_process_group_raises():
    with pytest.raises(RuntimeError, match=r"expected rank 1 of 2, but torch\.distributed has 0 of 1"):
        ProcessGroup(1, 2).assert_initialized()
    ProcessGroup().assert_initialized()


def test_several_nodes_outside_a_slurm_job_raise(
    data: Path, tmp_path: Path, refusal: Callable, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert "resources.nodes: 2" in refusal(lambda: train(spec(8), data, tmp_path / "run", Execution(nodes=2)))


TRAIN = """
import sys
from pathlib import Path
from batchscape.config.run import RunSpec
from batchscape.training.execution import Execution
from batchscape.training.launcher import launch
from batchscape.training.train import train
train(RunSpec.model_validate_json(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), Execution(code="code", devices=2))
"""


@contextmanager
def run_in_two_processes(run_spec: RunSpec, data: Path, directory: Path) -> Iterator[subprocess.Popen]:
    """Train with two processes; yield once a checkpoint is written."""
    arguments = [sys.executable, "-c", TRAIN, run_spec.model_dump_json(), str(data), str(directory)]
    checkpoint = RunDirectory(directory).checkpoint_folder / CHECKPOINT

    def written_at() -> int | None:
        # While a checkpoint is written, the one before has been moved away: between two looks it may be gone.
        with suppress(FileNotFoundError):
            return checkpoint.stat().st_mtime_ns
        return None

    before = written_at()
    with subprocess.Popen(
        arguments,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which a shell's background jobs ignore
    ) as process:
        try:

            def is_training() -> bool:
                assert process.poll() is None, process.stderr.read()
                return written_at() not in (None, before)

            def read_errors() -> str:
                process.kill()
                return process.stderr.read()

            wait_for(is_training, read_errors)
            yield process
        finally:
            for pid in [process.pid, *worker_pids(directory)]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def worker_pids(directory: Path) -> list[int]:
    """Return the ids of the processes that train a run."""
    pids = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().decode()
        except (OSError, UnicodeDecodeError):
            continue
        if "batchscape.training.worker" in command and str(directory) in command:
            pids.append(int(entry.name))
    return sorted(pids)


def wait_until_no_worker_runs(directory: Path) -> None:
    wait_for(lambda: not worker_pids(directory), lambda: "the processes did not end")


LONG = 20_000  # more epochs than there is time for


def test_killed_process_ends_the_run_with_its_own_error(data: Path, tmp_path: Path):
    directory = tmp_path / "run"
    with run_in_two_processes(spec(25, LONG), data, directory) as process:
        pids = worker_pids(directory)
        assert len(pids) == 2
        os.kill(pids[1], signal.SIGKILL)
        _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 1
    assert "WorkerFailed: process 1 of 2: Signal 9 (SIGKILL) received by PID" in errors.splitlines()[-1]
    wait_until_no_worker_runs(directory)
    assert not RunDirectory(directory).run_file.exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_processes_end_with_their_launcher(data: Path, tmp_path: Path, number: signal.Signals):
    with run_in_two_processes(spec(25, LONG), data, tmp_path / "run") as process:
        process.send_signal(number)
        process.wait(TIMEOUT)
        assert process.returncode != 0
        wait_until_no_worker_runs(tmp_path / "run")


def test_killed_run_resumes_to_identical_bits(data: Path, tmp_path: Path):
    run_spec = spec(25, 30, normalize=True)
    uninterrupted = RunDirectory(train(run_spec, data, tmp_path / "uninterrupted", Execution(code="code", devices=2)))
    with run_in_two_processes(run_spec, data, tmp_path / "run") as process:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    wait_until_no_worker_runs(tmp_path / "run")
    assert not RunDirectory(tmp_path / "run").run_file.exists()
    resumed = RunDirectory(train(run_spec, data, tmp_path / "run", Execution(code="code", devices=2)))
    for (name, expected), values in zip(
        recorded_values(uninterrupted).items(), recorded_values(resumed).values(), strict=True
    ):
        np.testing.assert_array_equal(values, expected, err_msg=name)


def test_processes_import_from_the_path_of_their_launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As in a conda environment: the package may be only beside Snakemake, at the end of the path of its jobs."""
    (tmp_path / "elsewhere.py").write_text(
        "import os\nfrom pathlib import Path\n\n"
        "def write_rank(folder):\n    (Path(folder) / os.environ['RANK']).touch()\n"
    )
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.delenv("PYTHONPATH", raising=False)
    elsewhere = importlib.import_module("elsewhere")
    (tmp_path / "ranks").mkdir()
    launch(elsewhere.write_rank, {"folder": str(tmp_path / "ranks")}, devices=2)
    assert {path.name for path in (tmp_path / "ranks").iterdir()} == {"0", "1"}


@pytest.mark.parametrize("level", [logging.INFO, logging.WARNING])
def test_processes_log_at_the_level_of_their_launcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture, level: int
):
    """A job logs progress; `batchscape verify` prints only its answers."""
    (tmp_path / f"logs_at_{level}.py").write_text(
        "import logging\n\n"
        "def log_progress():\n"
        "    logging.getLogger('batchscape.training').info('epoch 1')\n"
        "    logging.getLogger('batchscape.training').warning('slow')\n"
    )
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.setattr(logging.getLogger("batchscape"), "level", level)
    launch(importlib.import_module(f"logs_at_{level}").log_progress, {}, devices=2)
    printed = capfd.readouterr().err
    assert printed.count("slow") == 2
    assert printed.count("epoch 1") == (level == logging.INFO)
