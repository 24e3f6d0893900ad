"""Complete recipes: AdamW, clipping, warm-up, decay and a budget that ends within an epoch; and how they resume."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LambdaLR, LinearLR, LRScheduler, SequentialLR
from torch.optim.optimizer import register_optimizer_step_pre_hook

from batchscape.config.run import RunSpec
from batchscape.data.prepared import PreparedData, write_prepared
from batchscape.io.run_directory import RunDirectory
from batchscape.models import memory as chunks
from batchscape.models.build import build_network
from batchscape.training import plan, recorder
from batchscape.training.checkpoint import CHECKPOINT
from batchscape.training.execution import Execution
from batchscape.training.launcher import WorkerFailed
from batchscape.training.sampler import epoch_order
from batchscape.training.train import train
from tests.helpers.objectives import CPU
from tests.helpers.recipes import KILL_AFTER, NUM_EXAMPLES, SEGMENT, NoisySGD, recorded, three_classes

ROOT = Path(__file__).parents[3]
CLIP_NORM, DECAY, RATE = 1.0, 0.1, 0.02
# 97 + 97 examples in 9 + 9 steps, and 5 steps for 56 more. The third interval begins with the last batch of an epoch,
# which has a single example.
STEPS, EVALUATIONS = 23, [4, 8, 12, 16, 20, 23]
WARMUP, DECAY_STEPS, FINAL = 5, 12, 0.1  # a fraction of 0.2 is 4.6 steps; one of 0.52 is 11.96


def recipe(**changes: Any) -> RunSpec:
    values = {
        "batch_size": 12,
        "learning_rate": RATE,
        "seed": 3,
        "model": {"name": "tests.helpers.recipes:Exact"},
        "training": {
            "budget": {"examples": 250}, "evaluate_every": {"steps": 4}, "patience": None, "accelerator": "cpu",
        },
        "optimizer": {
            "name": "tests.helpers.recipes:killing_adamw", "arguments": {"weight_decay": DECAY, "betas": [0.8, 0.95]},
            "decay_biases_and_norms": False, "clip_norm": CLIP_NORM,
        },
        "schedule": {
            "warmup": {"fraction": 0.2}, "decay": "cosine", "decay_fraction": 0.52, "final_factor": FINAL,
        },
    }  # fmt: skip
    return RunSpec.model_validate(values | changes)


@pytest.fixture(scope="module")
def data() -> PreparedData:
    return three_classes()


@pytest.fixture(scope="module")
def data_file(data: PreparedData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "prepared.safetensors"
    write_prepared(path, data)
    return path


def test_noise_of_an_optimizer_differs_between_seeds_and_steps(data_file: Path, tmp_path: Path):
    drawn = []
    for seed in (1, 2):
        changes = {"seed": seed, "model": {"name": "mlp"}, "optimizer": {"name": "tests.helpers.recipes:NoisySGD"}}
        train(recipe(**changes), data_file, tmp_path / f"seed{seed}")
        drawn += NoisySGD.drawn[-STEPS:]  # after those of the probe of the optimizer
    assert len(set(drawn)) == 2 * STEPS


@pytest.fixture(scope="module", autouse=True)
def import_path() -> Iterator[None]:
    """Let the processes of a training import the network, and cut segments of three steps, each with a checkpoint."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])))
        patch.setenv(SEGMENT, "3")
        patch.setattr(plan, "SEGMENT_STEPS", 3)
        patch.setattr(recorder, "CHECKPOINT_INTERVAL", 0.0)
        yield


# A plain loop.


@dataclass
class Reference:
    """What a plain loop has recorded."""

    network: torch.nn.Module
    norms: list[float] = field(default_factory=list)
    clipped: list[bool] = field(default_factory=list)
    rows: list[dict[str, float]] = field(default_factory=list)


def warmup_and_cosine(optimizer: torch.optim.Optimizer) -> LRScheduler:
    """Return the schedule of the recipe, of torch's schedulers."""
    phases = [
        LinearLR(optimizer, 1 / WARMUP, total_iters=WARMUP - 1),
        ConstantLR(optimizer, 1.0),
        CosineAnnealingLR(optimizer, DECAY_STEPS, eta_min=FINAL * RATE),
    ]
    return SequentialLR(optimizer, phases, [WARMUP, STEPS - DECAY_STEPS])


def train_plainly(
    data: PreparedData,
    spec: RunSpec,
    sizes: Sequence[int],
    evaluations: Sequence[int] = EVALUATIONS,
    schedule: Callable[[torch.optim.Optimizer], LRScheduler] = warmup_and_cosine,
) -> Reference:
    """Train with torch's AdamW, without its fused implementation, torch's schedulers and clipping by hand.

    `sizes` are the examples of each batch, in order.
    """
    network = build_network(spec.model, data.spec, 3, spec.seed)
    named = dict(network.named_parameters())
    is_decayed = {name: name.endswith("weight") and "norm" not in name for name in named}
    groups = [
        {"params": [named[name] for name in named if is_decayed[name]], "weight_decay": DECAY},
        {"params": [named[name] for name in named if not is_decayed[name]], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.8, 0.95), foreach=False, fused=False)
    scheduler = schedule(optimizer)
    order = np.concatenate([epoch_order(NUM_EXAMPLES, spec.seed, epoch) for epoch in (1, 2, 3)])
    batches = torch.from_numpy(order)[: sum(sizes)].split(list(sizes))
    reference, losses, examples, evaluated = Reference(network), [], 0, 0
    for step, indices in enumerate(batches, start=1):
        batch = data.train.batch(indices, CPU)
        each = F.cross_entropy(network(batch.inputs), batch.targets, reduction="none")
        optimizer.zero_grad()
        each.mean().backward()
        gradients = [parameter.grad for parameter in named.values() if parameter.grad is not None]
        norm = float(torch.cat([gradient.flatten() for gradient in gradients]).norm())
        for gradient in gradients:
            gradient *= min(1.0, CLIP_NORM / (norm + 1e-6))  # with torch's guard against norms of 0
        reference.clipped.append(norm > CLIP_NORM)
        before = torch.nn.utils.parameters_to_vector(named.values()).detach()
        rate = optimizer.param_groups[0]["lr"]
        optimizer.step()
        scheduler.step()
        reference.norms.append(float((torch.nn.utils.parameters_to_vector(named.values()).detach() - before).norm()))
        losses += each.tolist()
        examples += len(indices)
        if step in evaluations:
            held_out = data.validation.batch(slice(None), CPU)
            with torch.no_grad():
                validation_loss = F.cross_entropy(network(held_out.inputs), held_out.targets).item()
            reference.rows.append(
                {
                    "step": step,
                    "examples": examples,
                    "epoch": examples / NUM_EXAMPLES,
                    "train_loss": float(np.mean(losses)),
                    "validation_loss": validation_loss,
                    "learning_rate": rate,
                    "clipped": float(np.mean(reference.clipped[evaluated:])),
                }
            )
            losses, evaluated = [], step
    return reference


@pytest.fixture(scope="module")
def reference(data: PreparedData) -> Reference:
    found = train_plainly(data, recipe(), [*[12] * 8, 1, *[12] * 8, 1, *[12] * 5])
    assert 3 < sum(found.clipped) < STEPS - 3
    return found


def assert_equals_the_loop(run: RunDirectory, reference: Reference) -> None:
    history = pd.read_csv(run.history_file)
    for name in reference.rows[0]:
        expected = [row[name] for row in reference.rows]
        np.testing.assert_allclose(history[name], expected, rtol=1e-12, err_msg=name)
    np.testing.assert_allclose(run.update_norms(), reference.norms, rtol=1e-11)
    expected = torch.nn.utils.parameters_to_vector(reference.network.parameters()).detach().numpy()
    assert run.weights("last").vector.dtype == np.float64
    np.testing.assert_allclose(run.weights("last").vector, expected, rtol=1e-12, atol=1e-12)


def test_recipe_equals_a_plain_loop(data_file: Path, reference: Reference, tmp_path: Path):
    run = RunDirectory(train(recipe(), data_file, tmp_path / "run"))
    assert_equals_the_loop(run, reference)
    summary, best = run.summary(), min(reference.rows, key=lambda row: row["validation_loss"])
    assert (summary["status"], summary["steps"], summary["evaluations"]) == ("completed", STEPS, len(EVALUATIONS))
    assert summary["epochs"] == pytest.approx(250 / 97, rel=0.03)
    assert (summary["best_step"], summary["best_epoch"]) == (best["step"], best["epoch"])


def test_recipe_with_micro_batches_equals_the_loop(
    data_file: Path, reference: Reference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(chunks.ACTIVATION_BYTES, "cpu", 16 << 10)
    run = RunDirectory(train(recipe(), data_file, tmp_path / "run"))
    assert run.summary()["environment"]["micro_batch"] < 12
    assert_equals_the_loop(run, reference)


@pytest.fixture(scope="module")
def shared(data_file: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """The run over two processes."""
    directory = tmp_path_factory.mktemp("runs") / "shared"
    return RunDirectory(train(recipe(), data_file, directory, Execution(code="code", devices=2)))


def test_recipe_over_two_processes_equals_the_loop(shared: RunDirectory, reference: Reference):
    assert_equals_the_loop(shared, reference)


def test_run_over_two_processes_resumes_within_an_epoch_to_identical_bits(
    shared: RunDirectory, data_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run, execution = RunDirectory(tmp_path / "run"), Execution(code="code", devices=2)
    with monkeypatch.context() as patch:
        patch.setenv(KILL_AFTER, "15")  # a segment ends there, but neither an interval nor an epoch
        with pytest.raises(WorkerFailed):
            train(recipe(), data_file, run.path, execution)
    assert (run.checkpoint_folder / CHECKPOINT).exists() and not run.run_file.exists()
    train(recipe(), data_file, run.path, execution)
    assert recorded(run) == recorded(shared)


# Stages.

STAGES = [
    {"start": {"examples": 60}, "batch_size_factor": 2, "learning_rate_factor": 0.5},
    {"start": {"fraction": 0.5}, "batch_size_factor": 4, "learning_rate_factor": 0.25},
]
# 60 examples are 5 batches of 12, and batches of 24 end at 145 examples, the first place beyond half of 250.
STAGE_SIZES = [*[12] * 5, 24, 13, 24, 24, 48, 1, 48, 48]
STAGE_RATES = [*[1.0] * 5, *[0.5] * 4, *[0.25] * 4]


def staged_recipe() -> RunSpec:
    return recipe(stages=STAGES, schedule={})


@pytest.mark.parametrize("devices", [1, 2])
def test_stages_equal_a_plain_loop(data: PreparedData, data_file: Path, tmp_path: Path, devices: int):
    def schedule(optimizer: torch.optim.Optimizer) -> LRScheduler:
        return LambdaLR(optimizer, lambda step: [*STAGE_RATES, 0.0][step])

    reference = train_plainly(data, staged_recipe(), STAGE_SIZES, [4, 8, 12, 13], schedule)
    run = RunDirectory(train(staged_recipe(), data_file, tmp_path / "run", Execution(code="code", devices=devices)))
    assert_equals_the_loop(run, reference)
    assert run.summary()["steps"] == len(STAGE_SIZES)


@pytest.mark.parametrize("stop_before", [7, 10])
def test_run_with_stages_resumes_to_identical_bits(data_file: Path, tmp_path: Path, stop_before: int):
    complete, run = RunDirectory(tmp_path / "complete"), RunDirectory(tmp_path / "run")
    train(staged_recipe(), data_file, complete.path, Execution(code="code"))
    with pytest.raises(Stop):
        train_counting_steps(staged_recipe(), data_file, run.path, stop_before)
    taken = train_counting_steps(staged_recipe(), data_file, run.path)
    assert taken < len(STAGE_SIZES)
    assert recorded(run) == recorded(complete)


# Budgets and evaluations.

SMALL: dict[str, Any] = {
    "model": {"name": "vgg", "channels": [4], "dense": [8], "dropout": 0.3},
    "batch_size": 23,  # ten steps an epoch of the small data
    "learning_rate": 0.01,
}


def small(training: dict[str, Any], **changes: Any) -> RunSpec:
    return recipe(**(SMALL | changes | {"training": {"accelerator": "cpu", "patience": None, **training}}))


def test_budgets_in_any_unit_train_the_same_run(small_data_file: Path, tmp_path: Path):
    def run(budget: dict[str, int]) -> dict[str, Any]:
        spec = small({"budget": budget, "evaluate_every": {"steps": 7}})
        return recorded(RunDirectory(train(spec, small_data_file, tmp_path / str(budget))))

    whole = run({"steps": 20})
    assert len(whole["update_norms"]) == 20
    assert run({"examples": 20 * 23}) == whole
    assert run({"epochs": 2}) == whole
    within = run({"steps": 13})
    assert len(within["update_norms"]) == 13
    assert run({"examples": 13 * 23}) == within
    assert run({"examples": 12 * 23 + 1}) == within


@pytest.mark.parametrize(("patience", "status"), [(None, "completed"), (50, "budget_spent")])
def test_status_and_length_of_a_run_at_the_end_of_its_budget(
    small_data_file: Path, tmp_path: Path, patience: int | None, status: str
):
    run = RunDirectory(train(small({"budget": {"steps": 13}, "patience": patience}), small_data_file, tmp_path / "run"))
    summary = run.summary()
    assert (summary["status"], summary["steps"], summary["epochs"], summary["evaluations"]) == (status, 13, 1.3, 2)
    assert run.update_norms().shape == (13,)
    assert pd.read_csv(run.history_file)[["step", "examples", "epoch"]].to_numpy().tolist() == [
        [10, 230, 1],
        [13, 299, 1.3],
    ]


@pytest.mark.parametrize("normalization", ["none", "batch"])
def test_evaluations_do_not_change_the_weights(small_data_file: Path, tmp_path: Path, normalization: str):
    model = SMALL["model"] | {"normalization": normalization}
    weights, norms = set(), set()
    for interval in ({"steps": 3}, {"epochs": 1}, {"examples": 100}):
        spec = small({"budget": {"steps": 25}, "evaluate_every": interval}, model=model, averaging={"half_life": 100})
        run = RunDirectory(train(spec, small_data_file, tmp_path / str(interval)))
        weights.add(run.weights_file("last").read_bytes() + run.weights_file("average").read_bytes())
        norms.add(run.update_norms().tobytes())
    assert len(weights) == len(norms) == 1


# Resume.


class Stop(BaseException):
    """Stops a run as a kill would."""


# Parameters of what optimizers are checked with: for a fused implementation, and whether they follow a schedule.
CHECKED_SIZES = (1, 103)


def train_counting_steps(spec: RunSpec, data: Path, directory: Path, stop_before: int | None = None) -> int:
    """Train a run, or raise Stop before one of the steps of this process; return the number of these steps."""
    taken = 0

    def count(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        nonlocal taken
        size = sum(parameter.numel() for group in optimizer.param_groups for parameter in group["params"])
        if size in CHECKED_SIZES:
            return
        taken += 1
        if taken == stop_before:
            raise Stop

    hook = register_optimizer_step_pre_hook(count)
    try:
        train(spec, data, directory, Execution(code="code"))
    finally:
        hook.remove()
    return taken


OPTIMIZERS: dict[str, tuple[str, dict[str, Any]]] = {
    "SGD": ("SGD", {}),
    "SGD with momentum": ("SGD", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    "Adam": ("Adam", {"weight_decay": 0.01}),
    "AMSGrad": ("Adam", {"amsgrad": True}),
    "AdamW": ("AdamW", {}),
    "NAdam": ("NAdam", {"momentum_decay": 0.01}),
    "RAdam": ("RAdam", {"betas": [0.5, 0.6]}),  # with which it rectifies after a few steps
    "Adamax": ("Adamax", {}),
    "Adagrad": ("Adagrad", {"lr_decay": 0.01}),
    "Adadelta": ("Adadelta", {}),
    "RMSprop": ("RMSprop", {}),
    "RMSprop, centered": ("RMSprop", {"centered": True, "momentum": 0.9}),
    "ASGD": ("ASGD", {"t0": 3, "lambd": 0.01}),
    "Rprop": ("Rprop", {}),
    "Adafactor": ("Adafactor", {}),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_run_resumes_within_an_epoch_to_identical_bits(small_data_file: Path, tmp_path: Path, name: str):
    optimizer, arguments = OPTIMIZERS[name]
    spec = small(
        {
            "budget": {"steps": 21}, "evaluate_every": {"steps": 9}, "checkpoints": [1, 2],
            "augment_flip": True, "augment_shift": 1,
        },
        batch_size=32,  # eight steps an epoch, the last of six examples
        model={"name": "vgg", "channels": [4], "dense": [8], "normalization": "batch", "dropout": 0.3},
        optimizer={"name": optimizer, "arguments": arguments, "clip_norm": 0.5},
        averaging={"half_life": 100},
        **({"schedule": {}} if name == "Rprop" else {}),  # which follows none
    )  # fmt: skip
    uninterrupted, run = RunDirectory(tmp_path / "uninterrupted"), RunDirectory(tmp_path / "run")
    assert train_counting_steps(spec, small_data_file, uninterrupted.path) == 21
    rng = np.random.default_rng(list(OPTIMIZERS).index(name))
    first, second = rng.integers(5, 9), rng.integers(4, 10)  # the second one counts from a checkpoint
    with pytest.raises(Stop):
        train_counting_steps(spec, small_data_file, run.path, first)
    with pytest.raises(Stop):
        train_counting_steps(spec, small_data_file, run.path, second)
    assert train_counting_steps(spec, small_data_file, run.path) <= 21 - 6
    expected = recorded(uninterrupted)
    found = recorded(run)
    assert found.keys() == expected.keys()
    assert [key for key in expected if found[key] != expected[key]] == []
    assert {"average.safetensors", "epoch00001.safetensors", "epoch00002.safetensors"} < expected.keys()
    of_adam = {f"second moments of {each}.safetensors" for each in ("epoch00001", "epoch00002", "last")}
    assert of_adam & expected.keys() == (of_adam if optimizer in ("Adam", "AdamW", "NAdam", "RAdam") else set())


def test_run_resumes_from_the_last_segment(small_data_file: Path, tmp_path: Path):
    """Segments of three steps are cut from the evaluations after steps 10 and 17 on."""
    spec = small({"budget": {"steps": 25}, "evaluate_every": {"steps": 17}, "checkpoints": [1]})
    for stop_before, checkpoint in ((4, 3), (10, 9), (11, 10), (17, 16), (18, 17), (23, 20)):
        directory = tmp_path / str(stop_before)
        with pytest.raises(Stop):
            train_counting_steps(spec, small_data_file, directory, stop_before)
        assert train_counting_steps(spec, small_data_file, directory) == 25 - checkpoint


TRAIN = """
import sys
from pathlib import Path
from batchscape.config.run import RunSpec
from batchscape.training.execution import Execution
from batchscape.training.train import train
train(RunSpec.model_validate_json(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), Execution(code="code"))
"""


def test_killed_run_of_a_single_epoch_resumes_to_identical_bits(small_data_file: Path, tmp_path: Path):
    spec = small({"budget": {"epochs": 1}}, batch_size=16)  # 15 steps, and no evaluation before the end
    uninterrupted = RunDirectory(train(spec, small_data_file, tmp_path / "uninterrupted", Execution(code="code")))
    run = RunDirectory(tmp_path / "run")
    command = [sys.executable, "-c", TRAIN, spec.model_dump_json(), str(small_data_file), str(run.path)]
    killed = subprocess.run(command, env=os.environ | {KILL_AFTER: "8"}, stderr=subprocess.DEVNULL, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert train_counting_steps(spec, small_data_file, run.path) == 15 - 6
    assert recorded(run) == recorded(uninterrupted)
