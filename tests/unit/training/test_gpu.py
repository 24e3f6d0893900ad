"""On a GPU: exact batches, resumption, precision, analyses, and two jobs that share it.

Sums are rounded differently there, and some kernels differ from run to run, so results are compared with tolerances.
Tests of memory are in `tests/unit/models/test_memory.py`.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from batchscape.analysis.sharpness import Config as SharpnessConfig
from batchscape.analysis.sharpness import analyze
from batchscape.analysis.surfaces import training_surface
from batchscape.config.run import RunSpec
from batchscape.data.prepared import PreparedData, read_prepared
from batchscape.io.run_directory import RunDirectory
from batchscape.training import recorder
from batchscape.training.execution import Execution
from batchscape.training.train import train

pytestmark = pytest.mark.gpu

ROUNDING = 1e-3


def spec_of(accelerator: str = "gpu", precision: str = "float32", **model: object) -> RunSpec:
    """Return a run of three epochs on 230 digits, in batches of 64 of which the last has 38."""
    return RunSpec.model_validate(
        {
            "batch_size": 64,
            "learning_rate": 0.05,
            "seed": 1,
            "model": {"name": "vgg", "channels": [4, 8], "dense": [16], **model},
            "training": {
                "budget": {"epochs": 3}, "patience": None, "precision": precision, "accelerator": accelerator,
            },
            "optimizer": {"name": "SGD", "arguments": {"momentum": 0.9}},
        }
    )  # fmt: skip


def relative_error(run: RunDirectory, expected: RunDirectory) -> float:
    """Return how far the last weights of two runs are apart, relative to how far they moved."""
    last, other, start = run.weights("last").vector, expected.weights("last").vector, run.weights("init").vector
    return float(np.linalg.norm(last - other) / np.linalg.norm(other - start))


@pytest.fixture(scope="module")
def runs(small_data_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., RunDirectory]:
    """Trains a run once."""
    known: dict[str, RunDirectory] = {}

    def get(accelerator: str = "gpu", precision: str = "float32") -> RunDirectory:
        key = f"{accelerator}-{precision}"
        if key not in known:
            path = tmp_path_factory.mktemp("runs") / key
            known[key] = RunDirectory(train(spec_of(accelerator, precision), small_data_file, path))
        return known[key]

    return get


def test_run_takes_the_steps_of_a_run_on_a_cpu(runs: Callable):
    on_gpu, on_cpu = runs("gpu"), runs("cpu")
    assert on_gpu.summary()["environment"]["device"] == torch.cuda.get_device_name()
    np.testing.assert_array_equal(on_gpu.weights("init").vector, on_cpu.weights("init").vector)
    assert relative_error(on_gpu, on_cpu) < ROUNDING
    assert on_gpu.update_norms() == pytest.approx(on_cpu.update_norms(), rel=ROUNDING)
    columns = ["train_loss", "validation_loss", "gradient_norm"]
    np.testing.assert_allclose(on_gpu.history(columns), on_cpu.history(columns), rtol=ROUNDING)


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_lower_precision_learns_the_same_up_to_its_rounding(runs: Callable, precision: str):
    assert 0 < relative_error(runs("gpu", precision), runs("gpu")) < 0.2


class Interrupted(Exception):
    """Raised in place of a kill."""


def test_interrupted_run_resumes_to_the_same_weights(
    runs: Callable, small_data_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(recorder, "CHECKPOINT_INTERVAL", 0.0)
    execution = Execution(code="code")

    def interrupt(evaluation: int, _: float) -> bool:
        if evaluation == 2:
            raise Interrupted
        return False

    with pytest.raises(Interrupted):
        train(spec_of(), small_data_file, tmp_path / "run", execution, interrupt)
    resumed = RunDirectory(train(spec_of(), small_data_file, tmp_path / "run", execution))
    assert relative_error(resumed, runs("gpu")) < ROUNDING
    assert len(resumed.update_norms()) == len(runs("gpu").update_norms())


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="a single GPU: several that share a batch are not tested")
def test_two_gpus_share_a_batch(runs: Callable, small_data_file: Path, tmp_path: Path):
    shared = RunDirectory(train(spec_of(), small_data_file, tmp_path / "run", Execution(devices=2)))
    assert relative_error(shared, runs("gpu")) < ROUNDING


def test_derivatives_and_sharpness_are_those_of_a_cpu(runs: Callable, small_data_file: Path):
    run, data = runs("gpu"), read_prepared(small_data_file)
    on_gpu, on_cpu = training_surface(run, data), training_surface(runs("cpu"), data)
    weights = run.weights("best").vector
    vector = np.random.default_rng(0).normal(size=len(weights))
    assert on_gpu.value(weights).loss == pytest.approx(on_cpu.value(weights).loss, rel=1e-5)
    for derivative in (lambda surface: surface.gradient(weights)[1], lambda surface: hessian(surface, weights, vector)):
        expected = derivative(on_cpu)
        assert np.linalg.norm(derivative(on_gpu) - expected) < ROUNDING * np.linalg.norm(expected)
    assert largest_eigenvalue(run, data) == pytest.approx(largest_eigenvalue(runs("cpu"), data), rel=0.02)


def hessian(surface, weights: np.ndarray, vector: np.ndarray) -> np.ndarray:
    return surface.hessian_vector_product(weights, vector)


def largest_eigenvalue(run: RunDirectory, data: PreparedData) -> float:
    rows = analyze(run, data, SharpnessConfig(checkpoints=("best",)))
    return float(rows.loc[rows["measure"] == "hessian_eigenvalue", "value"].iloc[0])


TRAIN = """
import sys
from pathlib import Path
from batchscape.config.run import RunSpec
from batchscape.training.execution import Execution
from batchscape.training.train import train
train(RunSpec.model_validate_json(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), Execution(jobs_per_gpu=2))
"""


def test_two_jobs_share_a_gpu(runs: Callable, small_data_file: Path, tmp_path: Path):
    spec = spec_of()
    commands = [
        [sys.executable, "-c", TRAIN, spec.model_dump_json(), small_data_file, tmp_path / f"{job}"] for job in range(2)
    ]
    jobs = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    for job in jobs:
        _, errors = job.communicate(timeout=600)
        assert job.returncode == 0, errors
    for job in range(2):
        assert relative_error(RunDirectory(tmp_path / f"{job}"), runs("gpu")) < ROUNDING
