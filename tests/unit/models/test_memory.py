"""Lack of memory: fewer examples at once, or a one-line error."""

import copy
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from torch import nn

from batchscape.config.budget import Budget
from batchscape.config.device_timing import TimingSpec
from batchscape.config.model import CustomModelConfig, MlpConfig, TransformerConfig, VggConfig
from batchscape.config.run import RunSpec
from batchscape.config.training import TrainingConfig
from batchscape.curvature.loss_surface import LossSurface
from batchscape.data.prepared import PreparedData, write_prepared
from batchscape.data.spec import DataSpec
from batchscape.errors import is_out_of_memory
from batchscape.io.run_directory import RunDirectory
from batchscape.models import memory as chunks
from batchscape.models.build import build_network
from batchscape.models.inputs import random_inputs
from batchscape.models.memory import find_largest_fitting, saved_tensor_bytes
from batchscape.runtime.device import available_memory, free_memory, limit_gpu_memory
from batchscape.study.study import Study
from batchscape.training import module as training_module
from batchscape.training import recorder
from batchscape.training.distributed import ProcessGroup
from batchscape.training.execution import Execution
from batchscape.training.module import TrainingModule
from batchscape.training.timing import time_epochs
from batchscape.training.train import train
from tests.helpers.networks import build_image_network
from tests.helpers.objectives import classifier, image_data
from tests.helpers.surfaces import batch_norm_network, classify, image_surface, parameter_vector, synthetic_images
from tests.helpers.trainers import bare_trainer

# More than any machine has.
TOO_MANY_BYTES = 1 << 60


class Limited(nn.Module):
    """A network for which memory suffices for a few examples; for more, the real allocator fails."""

    def __init__(self, network: nn.Module, limit: int):
        super().__init__()
        self.network, self.limit = network, limit

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if len(images) > self.limit:
            torch.empty(TOO_MANY_BYTES, dtype=torch.uint8)
        return self.network(images)


# The search.


def allocate_with_torch(_: int) -> None:
    torch.empty(TOO_MANY_BYTES, dtype=torch.uint8)


def allocate_with_numpy(_: int) -> None:
    np.empty(TOO_MANY_BYTES, dtype=np.uint8)


@pytest.mark.parametrize("allocate", [allocate_with_torch, allocate_with_numpy])
def test_size_is_halved_until_it_fits(allocate):
    tried = []

    def compute(size: int) -> str:
        tried.append(size)
        if size > 13:
            allocate(size)
        return f"of {size}"

    assert find_largest_fitting(100, compute) == (12, "of 12")
    assert tried == [100, 50, 25, 12]


@pytest.mark.parametrize("allocate", [allocate_with_torch, allocate_with_numpy])
def test_out_of_memory_for_one_example_is_raised(allocate):
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        find_largest_fitting(8, allocate)
    assert is_out_of_memory(caught.value)


def test_other_errors_are_raised_immediately():
    tried = []

    def compute(size: int) -> None:
        tried.append(size)
        raise RuntimeError("size mismatch")

    with pytest.raises(RuntimeError, match="size mismatch"):
        find_largest_fitting(8, compute)
    assert tried == [8]


def test_memory_of_a_failed_attempt_is_freed():
    class Held:
        alive = 0

        def __init__(self) -> None:
            Held.alive += 1
            self.itself = self  # as in a network whose outputs refer to their graph

        def __del__(self) -> None:
            Held.alive -= 1

    alive = []

    def compute(size: int) -> None:
        alive.append(Held.alive)
        held = Held()
        if size > 1:
            allocate_with_torch(size)
        del held

    find_largest_fitting(4, compute)
    assert alive == [0, 0, 0]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
    ],
    ids=str,
)
def test_errors_of_a_gpu_are_recognized(error: Exception):
    assert is_out_of_memory(error)


# Smaller chunks give the same results.


@pytest.mark.parametrize("network", [nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 1)),
                                     batch_norm_network()], ids=["dense", "BatchNorm"])  # fmt: skip
def test_loss_surface_continues_with_smaller_chunks(network: nn.Module):
    images, labels = synthetic_images(70)
    surface = image_surface(Limited(network, 10), images, labels, dtype=torch.float64, chunk=64)
    expected = image_surface(network, images, labels, dtype=torch.float64, chunk=64)
    weights = parameter_vector(network)
    vector = np.random.default_rng(0).normal(size=len(weights))
    value, expected_value = surface.value(weights), expected.value(weights)
    assert value.loss == pytest.approx(expected_value.loss, rel=1e-12)
    assert value.metrics == expected_value.metrics
    loss, gradient = surface.gradient(weights)
    assert loss == pytest.approx(expected.gradient(weights)[0], rel=1e-12)
    assert gradient == pytest.approx(expected.gradient(weights)[1], rel=1e-10, abs=1e-14)
    product, expected_product = (
        surface.hessian_vector_product(weights, vector),
        expected.hessian_vector_product(weights, vector),
    )
    assert product == pytest.approx(expected_product, rel=1e-10, abs=1e-14)


def test_validation_and_gradient_noise_continue_with_smaller_chunks(small_data: PreparedData):
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 1))
    module = TrainingModule(
        classifier(Limited(network, 100)), small_data, RunSpec(batch_size=32, learning_rate=0.1, seed=0)
    )
    bare_trainer(1).fit(module)
    expected = module.validate(), module.noise_scale()
    module.network.limit = 5
    module.chunk = 2048
    validation = module.validate()
    assert validation.loss == pytest.approx(expected[0].loss, rel=1e-6)
    assert validation.metrics == expected[0].metrics
    assert module.chunk == 4
    assert module.noise_scale() == pytest.approx(expected[1], rel=1e-4)


# The probe of GPU memory, without a GPU.


def test_memory_probe_restores_the_network_and_the_random_states(
    small_data: PreparedData, monkeypatch: pytest.MonkeyPatch, randomness
):
    monkeypatch.setattr(training_module, "limit_gpu_memory", lambda *_: nullcontext())
    network = nn.Sequential(batch_norm_network())
    module = TrainingModule(classifier(network), small_data, RunSpec(batch_size=32, learning_rate=0.1, seed=0))
    bare_trainer(1).fit(module)
    before = copy.deepcopy(module.state_dict())
    gradients = [parameter.grad.clone() for parameter in network.parameters()]
    randomness.seed(1)
    untouched = randomness.draws()
    randomness.seed(1)
    module._try_step(20)
    assert randomness.draws() == untouched
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert all(map(torch.equal, gradients, (parameter.grad for parameter in network.parameters())))


@pytest.mark.parametrize(("processes", "resumed_with", "expected"), [(1, None, 25), (2, None, 25), (1, 20, 20)])
def test_micro_batch_is_bounded_by_the_shard_and_by_the_resumed_run(
    small_data: PreparedData, monkeypatch: pytest.MonkeyPatch, processes: int, resumed_with: int | None, expected: int
):
    monkeypatch.setattr(training_module, "limit_gpu_memory", lambda *_: nullcontext())
    network = Limited(nn.Sequential(nn.Flatten(), nn.Linear(64, 1)), 32)
    spec = RunSpec(batch_size=200, learning_rate=0.1, seed=0)
    module = TrainingModule(classifier(network), small_data, spec, micro_batch=resumed_with)
    module.on_fit_start()
    module.process_group = ProcessGroup(0, processes)
    module.micro_batch = resumed_with or 200
    assert module._largest_micro_batch() == expected


# Runs out of memory.


@pytest.fixture(scope="module")
def many_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2,048 images of 8 × 8 for training, 64 for validation."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (2112, 1, 8, 8), dtype=np.uint8), np.arange(2112) % 2
    path = tmp_path_factory.mktemp("many") / "prepared.safetensors"
    write_prepared(path, image_data(images[:2048], labels[:2048], images[2048:], labels[2048:], ("no", "yes")))
    return path


# A job as in the workflow, limited to 400 MiB more than torch needs at the start. With 256 channels, one tensor of
# 2,048 examples takes 128 MiB, one of 64 takes 4 MiB.
IN_LITTLE_MEMORY = """
from batchscape.runtime.job import job_log
import json, resource, sys
from pathlib import Path
import torch
from batchscape.config.device_timing import TimingSpec
from batchscape.config.run import RunSpec
from batchscape.training.execution import Execution
from batchscape.training.timing import time_epochs
from batchscape.training.train import train

job, data, folder = json.loads(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
with job_log(folder / "job.log") as echo:
    torch.set_num_threads(1)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (400 << 20),) * 2)
    runs = tuple(map(RunSpec.model_validate, job["runs"]))
    if job["timed"]:
        rows = time_epochs(TimingSpec(runs=runs, device_counts=tuple(job["timed"])), data, gpus=0)
        echo(rows[["batch_size", "devices", "epoch"]].to_csv(index=False))
    else:
        train(runs[0], data, folder / "run", Execution(devices=job["devices"]))
"""


def run_with_little_memory(
    data: Path, folder: Path, sizes: list[int], normalization: str, devices: int = 1, timed: tuple[int, ...] = ()
) -> subprocess.CompletedProcess[str]:
    training = TrainingConfig(budget=Budget(epochs=1 + bool(timed)), accelerator="cpu")
    model = VggConfig(channels=(256,), dense=(8,), normalization=normalization)
    runs = [RunSpec(batch_size=size, learning_rate=0.1, seed=0, model=model, training=training) for size in sizes]
    job = {"runs": [run.model_dump(mode="json") for run in runs], "devices": devices, "timed": timed}
    command = [sys.executable, "-c", IN_LITTLE_MEMORY, json.dumps(job), str(data), str(folder)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize(("size", "normalization"), [(64, "batch"), (2048, "none")])
def test_batch_that_fits_or_can_be_split_trains(many_file: Path, tmp_path: Path, size: int, normalization: str):
    done = run_with_little_memory(many_file, tmp_path, [size], normalization)
    assert done.returncode == 0, done.stderr
    environment = RunDirectory(tmp_path / "run").summary()["environment"]
    assert environment["micro_batch"] == 64  # a batch of 2,048 is split to fit in the cache


@pytest.mark.parametrize("devices", [1, 2])
def test_batch_that_cannot_be_split_raises_a_one_line_error(many_file: Path, tmp_path: Path, devices: int):
    done = run_with_little_memory(many_file, tmp_path, [2048], "batch", devices)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("grid.batch_sizes: a batch of 2048 does not fit in the memory of this machine")
    assert "remove this batch size" in line
    assert not (tmp_path / "run" / "run.json").exists()


def test_batch_that_does_not_fit_has_no_timing(many_file: Path, tmp_path: Path):
    done = run_with_little_memory(many_file, tmp_path, [64, 2048], "batch", timed=(1,))
    assert done.returncode == 0, done.stderr
    assert done.stderr.split() == ["batch_size,devices,epoch", "64,1,1", "2048,1,0"]


class Hungry(nn.Module):
    """Fails for lack of memory after the first epochs, until memory is free again."""

    fed = True

    def __init__(self, image_shape: tuple[int, int, int], outputs: int):  # noqa: ARG002
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, outputs))
        self.steps = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.steps += self.training
        if not Hungry.fed and self.steps > 20:
            torch.empty(TOO_MANY_BYTES, dtype=torch.uint8)
        return self.layers(images)


def test_run_out_of_memory_is_reported_and_can_be_resumed(
    small_data_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal
):
    monkeypatch.setattr(recorder, "CHECKPOINT_INTERVAL", 0.0)
    spec = RunSpec(
        batch_size=32,
        learning_rate=0.1,
        seed=0,
        model=CustomModelConfig(name=f"{__name__}:Hungry", arguments={}),
        training=TrainingConfig(budget=Budget(epochs=4), patience=4, accelerator="cpu"),
    )
    undisturbed = RunDirectory(train(spec, small_data_file, tmp_path / "undisturbed", Execution(code="code")))
    monkeypatch.setattr(Hungry, "fed", False)
    message = refusal(train, spec, small_data_file, tmp_path / "run", Execution(code="code"))
    # In the third of the epochs of 8 steps.
    assert re.fullmatch(
        r"run: out of memory after step (1[6-9]|2[0-3]); free memory of this machine and rerun the command to resume",
        message,
    )
    monkeypatch.setattr(Hungry, "fed", True)
    resumed = RunDirectory(train(spec, small_data_file, tmp_path / "run", Execution(code="code")))
    assert np.array_equal(resumed.weights("last").vector, undisturbed.weights("last").vector)


def test_resumed_run_has_the_same_micro_batch(
    small_data_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal
):
    monkeypatch.setattr(recorder, "CHECKPOINT_INTERVAL", 0.0)
    spec = RunSpec(
        batch_size=32,
        learning_rate=0.1,
        seed=0,
        model=VggConfig(channels=(2,), dense=()),
        training=TrainingConfig(budget=Budget(epochs=3), patience=3, accelerator="cpu"),
    )
    with monkeypatch.context() as smaller:
        smaller.setitem(chunks.ACTIVATION_BYTES, "cpu", 8 << 10)
        refusal(train, spec, small_data_file, tmp_path / "run", Execution(code="code", deadline=0.0))  # after one epoch
    environment = RunDirectory(train(spec, small_data_file, tmp_path / "run", Execution(code="code"))).summary()[
        "environment"
    ]
    assert environment["micro_batch"] == 8
    fresh = RunDirectory(train(spec, small_data_file, tmp_path / "fresh", Execution(code="code"))).summary()[
        "environment"
    ]
    assert fresh["micro_batch"] == 32


class Wide(nn.Module):
    """Needs twice the memory of this machine for the gradient of 2,048 examples."""

    def __init__(self, image_shape: tuple[int, int, int], outputs: int):  # noqa: ARG002
        super().__init__()
        self.head = nn.Linear(64, outputs)
        self.width = psutil.virtual_memory().total * 2 // (2048 * 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        outputs = self.head(images.flatten(1) - images.flatten(1).mean(0))
        return outputs + torch.exp(outputs[:, :1].expand(-1, self.width)).mean(1, keepdim=True)


def test_batch_that_needs_more_memory_than_the_machine_has_is_rejected(many_file: Path, tmp_path: Path, refusal):
    spec = RunSpec(
        batch_size=2048,
        learning_rate=0.1,
        seed=0,
        model=CustomModelConfig(name=f"{__name__}:Wide", arguments={}),
        training=TrainingConfig(budget=Budget(epochs=1), accelerator="cpu"),
    )
    assert "a batch of 2048 does not fit in the memory of this machine" in refusal(
        train, spec, many_file, tmp_path / "run"
    )
    rows = time_epochs(TimingSpec(runs=(spec,), device_counts=(1,)), many_file, gpus=0)
    assert list(rows["epoch"]) == [0]


def test_saved_tensors_are_counted_once():
    network = nn.Sequential(nn.Linear(6, 5), nn.Sigmoid(), nn.Linear(5, 4))
    inputs = torch.rand(3, 6)
    # The inputs, the outputs of the sigmoid, which two operations save, and the weights of the second layer.
    assert saved_tensor_bytes(network, inputs) == 4 * (3 * 6 + 3 * 5 + 5 * 4)


class Columns(nn.Module):
    def __init__(self):
        super().__init__()
        self.dense, self.embedding = nn.Linear(6, 5), nn.Embedding(4, 5)

    def forward(self, inputs: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        numbers, categories = inputs
        return self.dense(numbers) * self.embedding(categories)


def test_saved_tensors_of_numbers_and_categories_are_counted():
    inputs = torch.rand(3, 6), torch.zeros(3, dtype=torch.long)
    # the inputs of both layers, indices of 8 bytes, and of the product
    assert saved_tensor_bytes(Columns(), inputs) == 4 * 3 * 6 + 8 * 3 + 2 * 4 * 3 * 5


@pytest.mark.parametrize(
    ("config", "spec", "bytes_of_largest"),
    [
        # the output layer: hidden values and logits of each of 10 positions
        (TransformerConfig(name="transformer", width=9), DataSpec("tokens", (10,), "next_token", vocabulary=1000),
         4 * 10 * (9 + 1000)),
        # the ReLU
        (MlpConfig(name="mlp", dense=(100,)), DataSpec("columns", (3,), "numbers", categories=(5,)), 4 * 2 * 100),
        # the embedding of all columns: 3 numbers and an index of 8 bytes, to 3 numbers and 3 dimensions
        (MlpConfig(name="mlp", dense=(2,)), DataSpec("columns", (3,), "numbers", categories=(5,)),
         (4 * 3 + 8) + 4 * (3 + 3)),
    ],
    ids=["text", "columns", "embedding"],
)  # fmt: skip
def test_micro_batch_of_tokens_and_columns_fits_in_the_cache(config, spec: DataSpec, bytes_of_largest: int):
    network = build_network(config, spec, spec.vocabulary or 1, 0).eval()
    assert chunks.max_micro_batch_size(network, random_inputs(spec, 4)) == (8 << 20) // bytes_of_largest


def test_job_out_of_memory_ends_with_a_one_line_error(tmp_path: Path):
    work = (
        "from batchscape.runtime.job import job_log\nimport numpy as np\n"
        f"with job_log({str(tmp_path / 'job.log')!r}): np.empty({TOO_MANY_BYTES}, np.uint8)"
    )
    done = subprocess.run([sys.executable, "-c", work], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"{tmp_path}/job.log: out of memory; run fewer jobs at once or use more memory, then rerun the same command to "
        "resume"
    ]
    assert "MemoryError" in (tmp_path / "job.log").read_text()


# On a GPU.


def test_gpu_memory_limit_is_a_share_of_the_free_memory_with_a_margin(monkeypatch: pytest.MonkeyPatch):
    limits = []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (30, 100))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 10)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 8)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda limit, _: limits.append(limit))
    for jobs in (1, 4):
        with limit_gpu_memory(torch.device("cuda"), jobs):
            pass
    assert [available_memory(torch.device("cuda"), jobs) for jobs in (1, 4)] == [40, 25]
    assert [free_memory(torch.device("cuda"), jobs) for jobs in (1, 4)] == [32, 17]
    assert limits == [pytest.approx(0.85 * 0.4), 1.0, pytest.approx(0.85 * 0.25), 1.0]


ON_GPU = {"batch_size": 2048, "learning_rate": 0.1, "seed": 0}


def gpu_spec(normalization: str) -> RunSpec:
    model = VggConfig(channels=(256,), dense=(8,), normalization=normalization)
    return RunSpec(**ON_GPU, model=model, training=TrainingConfig(budget=Budget(epochs=2), accelerator="gpu"))


@pytest.fixture
def limited_gpu_memory() -> Iterator[int]:
    """Limit torch to 400 MiB, too little for a step with 2,048 examples; return how many times the GPU has that."""
    torch.cuda.empty_cache()
    total = torch.cuda.mem_get_info()[1]
    torch.cuda.set_per_process_memory_fraction((400 << 20) / total)
    yield total // (400 << 20)
    torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.gpu
def test_batch_is_split_to_fit_a_share_of_a_gpu(
    many_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limited_gpu_memory: int
):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    cut = RunDirectory(train(gpu_spec("none"), many_file, tmp_path / "cut", Execution(jobs_per_gpu=limited_gpu_memory)))
    uncut = RunDirectory(train(gpu_spec("none"), many_file, tmp_path / "uncut"))
    assert 1 < cut.summary()["environment"]["micro_batch"] < 2048
    assert uncut.summary()["environment"]["micro_batch"] == 2048
    assert cut.update_norms() == pytest.approx(uncut.update_norms(), rel=1e-3)


@pytest.mark.gpu
@pytest.mark.usefixtures("limited_gpu_memory")
def test_batch_that_cannot_be_split_is_reported_with_the_gpu(many_file: Path, tmp_path: Path, refusal):
    message = refusal(train, gpu_spec("batch"), many_file, tmp_path / "run")
    assert f"a batch of 2048 does not fit in the memory of the {torch.cuda.get_device_name()} (" in message


@pytest.mark.gpu
@pytest.mark.usefixtures("limited_gpu_memory")
def test_loss_surface_on_a_gpu_continues_with_smaller_chunks():
    network = build_image_network(VggConfig(channels=(256,), dense=(8,)), (1, 8, 8), 1, 0)
    objective, data = classify(network, *synthetic_images(2048))
    weights = parameter_vector(network)
    surface, small = (
        LossSurface(objective, data, torch.device("cuda"), dtype=torch.float64, chunk=chunk) for chunk in (2048, 32)
    )
    vector = np.random.default_rng(0).normal(size=len(weights))
    assert surface.value(weights).loss == pytest.approx(small.value(weights).loss, rel=1e-9)
    assert surface.hessian_vector_product(weights, vector) == pytest.approx(
        small.hessian_vector_product(weights, vector), rel=1e-6
    )


# Large batches run first.


def test_one_run_per_batch_size_starts_early_largest_first():
    study = Study.model_validate({"name": "order", "grid": {"batch_sizes": [64, 16, 256], "seeds": [3, 1]}})
    priority = study.job_resources.run_priority
    early = sorted(filter(priority, study.runs), key=priority, reverse=True)
    rate = study.comparison.fixed_learning_rate
    assert early == [f"bs256-lr{rate}-seed3", f"bs64-lr{rate}-seed3"]
    searches = [study.job_resources.search_priority(size) for size in (16, 64, 256)]
    assert searches == sorted(searches)
    assert max(map(priority, study.runs)) < min(searches)
    assert max(searches) < study.job_resources.artifact_priority < study.job_resources.confirmation_priority
    assert sum(searches) < 1000  # the priority of the timing of devices


def test_micro_batch_size_includes_functional_operations():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.kernel = nn.Parameter(torch.zeros(8, 3, 3, 3))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return nn.functional.conv2d(images, self.kernel, padding=1)

    bytes_an_example = (3 + 8) * 64 * 64 * 4
    expected = chunks.ACTIVATION_BYTES["cpu"] // bytes_an_example
    assert chunks.max_micro_batch_size(Functional(), torch.zeros(2, 3, 64, 64)) == expected
