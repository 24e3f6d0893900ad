"""A run that several processes train together is the run that one trains, and they live and die together."""

import copy
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

from batchscape.config.model import VggConfig
from batchscape.config.run import RunSpec
from batchscape.config.training import TrainingConfig
from batchscape.data.prepared import PreparedData, write_prepared
from batchscape.io.run_directory import RunDirectory
from batchscape.training import recorder
from batchscape.training.batch_norm import GlobalBatchNorm, synchronize_batch_norm
from batchscape.training.checkpoint import CHECKPOINT
from batchscape.training.distributed import ProcessGroup
from batchscape.training.execution import Execution
from batchscape.training.train import train
from tests.helpers.waiting import TIMEOUT, wait_for

# All of an epoch that may go wrong when it is shared: a last batch of one example, of which some process has none; an
# uneven share of the others; BatchNorm, whose statistics are those of the whole batch; a parameter without a gradient.
OWN = '''
import torch
from torch import nn
from batchscape.training import recorder

recorder.CHECKPOINT_INTERVAL = 0.0

class Exact(nn.Module):
    """In float64, so that only the order of sums is left to differ."""

    def __init__(self, outputs, normalise: bool = False):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4) if normalise else nn.Identity()
        self.pool = nn.MaxPool2d(2)
        self.unused = nn.Linear(3, 3)
        self.head = nn.Linear(4 * 4 * 4, outputs)
        self.double()

    def forward(self, images):
        return self.head(torch.relu(self.pool(self.norm(self.conv(images.double())))).flatten(1))
'''


def spec(batch_size: int, epochs: int = 4, **options: object) -> RunSpec:
    return RunSpec.model_validate(
        {
            "batch_size": batch_size,
            "learning_rate": 0.1,
            "seed": 1,
            "warmup_epochs": 2,
            "model": {"name": "own_exact:Exact", "arguments": options},
            "training": {
                "max_epochs": epochs, "momentum": 0.9, "weight_decay": 0.01, "accelerator": "cpu", "augment_flip": True,
                "augment_shift": 1, "checkpoints": [2],
            },
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 images to train with, 31 to validate with."""
    rng = np.random.default_rng(0)
    labels = np.arange(131) % 3
    images = rng.integers(0, 256, (131, 1, 8, 8), dtype=np.uint8)
    images[labels == 1, :, 2:5] //= 3
    path = tmp_path_factory.mktemp("data") / "images.safetensors"
    write_prepared(path, PreparedData(images[:100], labels[:100], images[100:], labels[100:], ("a", "b", "c")))
    return path


@pytest.fixture(scope="module", autouse=True)
def own_network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The network stands where this process and those that it starts find it."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "own_exact.py").write_text(OWN)
    with pytest.MonkeyPatch.context() as patch:
        # What the network's module sets is for these runs only, of which one is trained in this process.
        patch.setattr(recorder, "CHECKPOINT_INTERVAL", 0.0)
        patch.syspath_prepend(str(folder))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]))
        yield


def numbers(run: RunDirectory) -> dict[str, np.ndarray]:
    """All that a run has recorded, but for times."""
    history = pd.read_csv(run.history_file)
    weights = {name: run.weights(name) for name in ("init", "best", "last", "epoch00002")}
    return {
        "history": history[[column for column in history if "seconds" not in column]].to_numpy(),
        "update norms": run.update_norms(),
        **{name: each.vector for name, each in weights.items()},
        **{f"{name}/{buffer}": array for name, each in weights.items() for buffer, array in each.buffers.items()},
    }


@pytest.mark.parametrize(("batch_size", "normalise", "processes"), [(33, True, (2, 3)), (3, False, (2,))], ids=str)
def test_one_two_and_three_processes_train_the_same_run(
    data: Path, tmp_path: Path, batch_size: int, normalise: bool, processes: tuple[int, ...]
):
    what = spec(batch_size, normalise=normalise)
    alone, *shared = (
        numbers(RunDirectory(train(what, data, tmp_path / f"of{devices}", Execution(devices=devices))))
        for devices in (1, *processes)
    )
    assert len(alone["history"]) == 4
    for found in shared:
        assert found.keys() == alone.keys()
        for name, expected in alone.items():
            np.testing.assert_allclose(found[name], expected, rtol=1e-10, atol=1e-12, err_msg=name)


def test_in_float32_they_differ_by_rounding_alone_and_what_they_were_is_recorded(few_file: Path, tmp_path: Path):
    what = RunSpec(
        batch_size=32,
        learning_rate=0.05,
        seed=3,
        model=VggConfig(channels=(4,), dense=(8,), normalization="batch"),
        training=TrainingConfig(max_epochs=3, accelerator="cpu", checkpoints=(2,)),
    )
    one, two = (
        RunDirectory(train(what, few_file, tmp_path / f"of{devices}", Execution(devices=devices))) for devices in (1, 2)
    )
    for (name, expected), found in zip(numbers(one).items(), numbers(two).values(), strict=True):
        np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-5, err_msg=name)
    assert [run.summary()["environment"]["devices"] for run in (one, two)] == [1, 2]
    assert not two.checkpoint_folder.exists()


def test_a_batch_smaller_than_the_processes_is_refused(data: Path, tmp_path: Path, refusal: Callable):
    message = refusal(lambda: train(spec(2), data, tmp_path / "run", Execution(devices=3)))
    assert "a batch of 2 images cannot be sharded over 3 devices" in message and "resources.devices: " in message
    assert not (tmp_path / "run").exists()


class Activated(nn.BatchNorm2d):
    """As some libraries have it: a BatchNorm that does more."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return torch.relu(super().forward(inputs))


@pytest.mark.parametrize("layer", [Activated(4), nn.InstanceNorm2d(4, track_running_stats=True)])
def test_a_network_that_takes_more_from_a_batch_than_batch_norm_is_refused(layer: nn.Module, refusal: Callable):
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), layer)
    images = torch.randint(256, (4, 1, 8, 8), dtype=torch.uint8)
    assert refusal(synchronize_batch_norm, network, images, ProcessGroup(0, 2)).startswith("resources.devices: ")
    assert type(network[1]) is nn.BatchNorm2d
    plain = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Sequential(nn.BatchNorm2d(4), nn.Dropout()))
    synchronize_batch_norm(plain, images, ProcessGroup(0, 2))
    assert type(plain[1][0]) is GlobalBatchNorm


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
def test_a_shared_batch_norm_has_the_weights_and_the_outputs_of_the_original(network: nn.Module):
    images = torch.randint(256, (4, 1, 8, 8), dtype=torch.uint8)
    shared = copy.deepcopy(network)
    synchronize_batch_norm(shared, images, ProcessGroup())
    assert any(isinstance(layer, GlobalBatchNorm) for layer in shared.modules())
    assert [name for name, _ in shared.named_parameters()] == [name for name, _ in network.named_parameters()]
    assert torch.allclose(shared(images / 255), network(images / 255), atol=1e-6)
    assert shared.state_dict().keys() == network.state_dict().keys()
    for name, value in network.state_dict().items():
        assert torch.allclose(shared.state_dict()[name], value), name


def test_processes_that_do_not_find_each_other_are_not_trained_with():
    with pytest.raises(RuntimeError, match=r"expected rank 1 of 2, but torch\.distributed has 0 of 1"):
        ProcessGroup(1, 2).assert_initialized()
    ProcessGroup().assert_initialized()


def test_several_nodes_outside_a_slurm_job_are_refused(
    data: Path, tmp_path: Path, refusal: Callable, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert "resources.nodes: 2" in refusal(lambda: train(spec(8), data, tmp_path / "run", Execution(nodes=2)))


TRAIN = """
import sys
from pathlib import Path
from batchscape.config.run import RunSpec
from batchscape.training.execution import Execution
from batchscape.training.train import train
train(RunSpec.model_validate_json(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), Execution(code="code", devices=2))
"""


@contextmanager
def started(what: RunSpec, data: Path, directory: Path) -> Iterator[subprocess.Popen]:
    """A training by two processes, past its first epochs."""
    arguments = [sys.executable, "-c", TRAIN, what.model_dump_json(), str(data), str(directory)]
    state = RunDirectory(directory).checkpoint_folder / CHECKPOINT
    before = state.stat().st_mtime_ns if state.exists() else None
    with subprocess.Popen(
        arguments,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which a shell's background jobs ignore
    ) as process:
        try:

            def is_on_its_way() -> bool:
                assert process.poll() is None, process.stderr.read()
                return state.exists() and state.stat().st_mtime_ns != before

            def told() -> str:
                process.kill()
                return process.stderr.read()

            wait_for(is_on_its_way, told)
            yield process
        finally:
            for pid in [process.pid, *ranks_of(directory)]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def ranks_of(directory: Path) -> list[int]:
    """The processes that train a run together, as the system sees them."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().decode()
        except (OSError, UnicodeDecodeError):
            continue
        if "batchscape.training.worker" in command and str(directory) in command:
            found.append(int(entry.name))
    return sorted(found)


def assert_none_is_left(directory: Path) -> None:
    wait_for(lambda: not ranks_of(directory), lambda: "no end of the processes")


LONG = 20_000  # more epochs than there is time for


def test_a_dead_process_ends_the_run_with_its_own_error(data: Path, tmp_path: Path):
    directory = tmp_path / "run"
    with started(spec(25, LONG), data, directory) as process:
        ranks = ranks_of(directory)
        assert len(ranks) == 2
        os.kill(ranks[1], signal.SIGKILL)
        _, said = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 1
    assert "WorkerFailed: process 1 of 2: Signal 9 (SIGKILL) received by PID" in said.splitlines()[-1]
    assert_none_is_left(directory)
    assert not RunDirectory(directory).run_file.exists()


@pytest.mark.parametrize("which", [signal.SIGKILL, signal.SIGINT])
def test_no_process_outlives_the_one_that_started_it(data: Path, tmp_path: Path, which: signal.Signals):
    with started(spec(25, LONG), data, tmp_path / "run") as process:
        process.send_signal(which)
        process.wait(TIMEOUT)
        assert process.returncode != 0
        assert_none_is_left(tmp_path / "run")


def test_a_run_that_is_killed_goes_on_and_ends_with_the_same_bits(data: Path, tmp_path: Path):
    what = spec(25, 30, normalise=True)
    undisturbed = RunDirectory(train(what, data, tmp_path / "undisturbed", Execution(code="code", devices=2)))
    with started(what, data, tmp_path / "run") as process:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert_none_is_left(tmp_path / "run")
    assert not RunDirectory(tmp_path / "run").run_file.exists()
    again = RunDirectory(train(what, data, tmp_path / "run", Execution(code="code", devices=2)))
    for (name, expected), found in zip(numbers(undisturbed).items(), numbers(again).values(), strict=True):
        np.testing.assert_array_equal(found, expected, err_msg=name)
