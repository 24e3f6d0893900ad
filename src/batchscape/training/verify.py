"""What holds for a recipe: each probe computes or trains with the network, the loss and the optimizer of the study."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from batchscape.config.budget import Budget
from batchscape.config.run import RunSpec
from batchscape.data.dataset import Batch
from batchscape.data.prepared import PreparedData, write_prepared
from batchscape.errors import UserError, is_out_of_memory
from batchscape.io.run_directory import RunDirectory
from batchscape.models.memory import saved_tensor_bytes
from batchscape.models.parameters import flatten_tensors
from batchscape.runtime.device import choose_device
from batchscape.tasks.build import build_objective
from batchscape.tasks.compatibility import (
    NUM_SPLIT_EXAMPLES,
    examples_are_independent,
    probe_batch,
    validate_network,
    validate_optimizer,
)
from batchscape.tasks.objective import Objective
from batchscape.training.batch_norm import synchronize_batch_norm
from batchscape.training.distributed import ProcessGroup
from batchscape.training.execution import Execution
from batchscape.training.launcher import WorkerFailed
from batchscape.training.micro_batches import backward
from batchscape.training.precision import Autocast
from batchscape.training.train import train

HOLDS, FAILS, NOT_CHECKED = "holds", "does not hold", "not checked"

# Enough to train a few steps with any batch size, and to notice what only some examples show.
MAX_EXAMPLES = 2048
STEPS, STEPS_PER_EVALUATION = 6, 2
# Two sums of float32 in another order. An adaptive optimizer turns the rounding of a vanishing gradient, such as that
# of a bias before BatchNorm, into a complete step. That changes weights, and until the running statistics have
# followed, the validation loss, but not the training loss.
TRAIN_LOSS_TOLERANCE, VALIDATION_LOSS_TOLERANCE, UPDATE_TOLERANCE = 1e-4, 0.01, 0.05
GRADIENT_TOLERANCE = 1e-4
# Time for which each batch size is timed, and the most steps in it.
SECONDS, MAX_STEPS = 1.0, 500
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Finding:
    """The result of a probe.

    Attributes:
        name: What was probed.
        status: `holds`, `does not hold` or `not checked`.
        detail: What was found, or why it does not hold or was not checked.
        is_required: Whether a study needs it; without second derivatives, some analyses have no result.
    """

    name: str
    status: str
    detail: str
    is_required: bool = True


@dataclass(frozen=True)
class Throughput:
    """The speed and the memory of training with a batch size.

    Attributes:
        batch_size: The batch size.
        examples_per_second: Training examples per second; nan if the batch does not fit in memory.
        micro_batch: Examples that are in the network at once.
        saved_bytes: Bytes that a micro-batch keeps for its backward pass.
    """

    batch_size: int
    examples_per_second: float
    micro_batch: int
    saved_bytes: int


def verify(
    spec: RunSpec, data: PreparedData, folder: Path, largest_batch: int, optimizer_is_named: bool = True
) -> Iterator[Finding]:
    """Probe whether a recipe trains under exact global batches.

    Args:
        spec: A run of the study; its budget is replaced by a few steps.
        data: The prepared data.
        folder: An empty folder for the runs of the probes.
        largest_batch: The largest batch size of the study.
        optimizer_is_named: Whether the study file names the optimizer.

    Yields:
        The findings, in the order of the probes. Where the network or the optimizer cannot train, nothing else is
        checked.
    """
    device = choose_device(spec.training.accelerator)
    try:
        network = validate_network(spec.model, spec.task, largest_batch, data, device)
    except UserError as error:
        yield Finding("network and loss", FAILS, str(error))
        yield from _unchecked("the network does not train")
        return
    yield Finding(
        "network and loss",
        HOLDS,
        f"{network['parameters']:,} parameters; losses and gradients of the parts of a batch add up",
    )
    hessian = network["hessian"]
    if hessian == "computed":
        yield Finding("second derivatives", HOLDS, "products with the Hessian are those of differences", False)
    else:
        yield Finding("second derivatives", FAILS, f"eigenvalue and trace of the Hessian are {hessian}", False)
    try:
        validate_optimizer(spec.optimizer, spec.model, spec.task, data, device, optimizer_is_named)
    except UserError as error:
        yield Finding("optimizer state", FAILS, str(error))
        yield from _unchecked("the optimizer does not train")
        return
    yield Finding("optimizer state", HOLDS, "it is saved and restored bit for bit")
    objective = build_objective(spec.model, spec.task, data, spec.seed)
    batch = probe_batch(data.train, count=NUM_SPLIT_EXAMPLES)
    is_random = _is_random(objective, batch)
    yield _check_micro_batches(objective, batch, data, is_random)
    short = _few_steps(spec)
    path = folder / "data.safetensors"
    write_prepared(path, select_examples(data, max(MAX_EXAMPLES, spec.batch_size)))
    yield from _check_runs(short, path, folder, _why_one_process(objective, short, data, is_random))


def _unchecked(reason: str) -> Iterator[Finding]:
    for name in ("micro-batches equal the complete batch", "a resumed run is exact", "two processes equal one"):
        yield Finding(name, NOT_CHECKED, reason)


def select_examples(data: PreparedData, limit: int) -> PreparedData:
    """Return at most `limit` training and validation examples, evenly spaced, and no test examples."""
    train, validation = (
        side if len(side) <= limit else side[torch.linspace(0, len(side) - 1, limit).long()]
        for side in (data.train, data.validation)
    )
    return PreparedData(data.spec, train, validation, None)


def _few_steps(spec: RunSpec) -> RunSpec:
    """Return a run of a few steps on the CPU, where results are the same in each run."""
    return _with_budget(spec, STEPS, STEPS_PER_EVALUATION, accelerator="cpu")


def _with_budget(spec: RunSpec, steps: int, every: int, **training: str) -> RunSpec:
    budget = {"budget": Budget(steps=steps), "evaluate_every": Budget(steps=every), "patience": None}
    return spec.model_copy(
        update={
            "training": spec.training.model_copy(update={**budget, "checkpoints": (), **training}),
            "stages": (),
        }
    )


def _gradient(objective: Objective, parts: list[Batch], total: float | torch.Tensor) -> torch.Tensor:
    """Return the gradient of the mean loss over a batch, from its parts."""
    parameters = [parameter for parameter in objective.module.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.grad = None
    backward(objective, parts, total)
    gradients = [torch.zeros_like(each) if each.grad is None else each.grad for each in parameters]
    return flatten_tensors(gradients).double()


def _is_random(objective: Objective, batch: Batch) -> bool:
    """Return whether the loss in training mode draws random numbers, as for dropout."""
    replica = objective.copy()
    replica.module.train()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        losses = []
        for seed in range(2):
            torch.manual_seed(seed)
            losses.append(replica(batch).loss.item())
    return not math.isclose(*losses, rel_tol=1e-6)


def _check_micro_batches(objective: Objective, batch: Batch, data: PreparedData, is_random: bool) -> Finding:
    name = "micro-batches equal the complete batch"
    if not examples_are_independent(objective, batch, data.spec):
        reason = "the network computes over the examples of a batch, as BatchNorm does, so batches are not split"
        return Finding(name, NOT_CHECKED, reason)
    replica = objective.copy()
    replica.module.train(not is_random)  # each part would draw other random numbers
    weights = replica.example_weights(batch)
    total = len(batch) if weights is None else weights.sum()
    at_once = _gradient(replica, [batch], total)
    first = len(batch) // 3
    parts = _gradient(replica, batch.split([first, len(batch) - first]), total)
    difference = _ratio((at_once - parts).norm(), at_once.norm())
    mode = " (without dropout)" if is_random else ""
    return Finding(
        name, HOLDS if difference <= GRADIENT_TOLERANCE else FAILS, f"gradients differ by {difference:.1g}{mode}"
    )


def _ratio(value: torch.Tensor | float, scale: torch.Tensor | float) -> float:
    """Return a ratio; 0 for 0/0."""
    return float(value) / float(scale) if float(value) else 0.0


def _why_one_process(objective: Objective, spec: RunSpec, data: PreparedData, is_random: bool) -> str:
    """Return why two processes would not give the same run as one; empty if they should."""
    if spec.batch_size < 2:
        return "a batch of one example has one process"
    if is_random:
        return "training draws random numbers, as for dropout, and each process draws its own"
    try:
        synchronize_batch_norm(objective.copy(), probe_batch(data.train), data.spec, ProcessGroup(0, 2))
    except UserError as error:
        return str(error)
    return ""


def _check_runs(spec: RunSpec, data: Path, folder: Path, why_one_process: str) -> Iterator[Finding]:
    """Train one run three times: uninterrupted, resumed and in two processes."""
    execution, names = Execution(code="verify"), ("a resumed run is exact", "two processes equal one")
    try:
        complete = RunDirectory(train(spec, data, folder / "complete", execution))
    except UserError as error:
        yield Finding(names[0], FAILS, f"a run of {STEPS} steps fails: {error}")
        yield Finding(names[1], NOT_CHECKED, "the run fails")
        return
    yield _probe(names[0], lambda: _compare_resumed(complete, spec, data, folder / "resumed", execution))
    if why_one_process:
        yield Finding(names[1], NOT_CHECKED, why_one_process)
        return
    shared = replace(execution, devices=2)
    yield _probe(names[1], lambda: _compare_shared(complete, RunDirectory(train(spec, data, folder / "two", shared))))


def _probe(name: str, compare: Callable[[], tuple[bool, str]]) -> Finding:
    try:
        holds, detail = compare()
    except (UserError, WorkerFailed) as error:
        return Finding(name, FAILS, str(error))
    return Finding(name, HOLDS if holds else FAILS, detail)


def _compare_resumed(
    complete: RunDirectory, spec: RunSpec, data: Path, path: Path, execution: Execution
) -> tuple[bool, str]:
    """Compare a run with one that stops after its first evaluation and continues from its checkpoint."""
    try:
        train(spec, data, path, replace(execution, deadline=time.time()))
    except UserError:
        if not RunDirectory(path).checkpoint_folder.exists():
            raise
    resumed = RunDirectory(train(spec, data, path, execution))
    same = complete.update_norms().tobytes() == resumed.update_norms().tobytes()
    for name in ("init", "last"):
        one, other = (run.weights_file(name).read_bytes() for run in (complete, resumed))
        same = same and one == other
    where = f"after step {STEPS_PER_EVALUATION} of {STEPS}"
    found = "weights and steps have the same bits" if same else "weights or steps differ"
    return same, f"stopped {where}, {found}"


def _compare_shared(complete: RunDirectory, shared: RunDirectory) -> tuple[bool, str]:
    """Compare a run with the same one in two processes."""
    columns = ["train_loss", "validation_loss"]
    losses, shared_losses = (run.history(columns).to_numpy(float) for run in (complete, shared))
    train_loss, validation_loss = (np.abs(shared_losses - losses) / np.maximum(np.abs(losses), 1e-12)).max(axis=0)
    start, last, other = (
        run.weights(name).vector for run, name in ((complete, "init"), (complete, "last"), (shared, "last"))
    )
    weights = _ratio(float(np.linalg.norm(other - last)), float(np.linalg.norm(last - start)))
    holds = train_loss <= TRAIN_LOSS_TOLERANCE and validation_loss <= VALIDATION_LOSS_TOLERANCE
    return bool(holds and weights <= UPDATE_TOLERANCE), (
        f"training losses differ by {train_loss:.1g}, validation losses by {validation_loss:.1g}, and weights by "
        f"{weights:.1g} of their change in {STEPS} steps"
    )


def measure_throughput(spec: RunSpec, data: PreparedData, folder: Path) -> Throughput:
    """Time the training with the batch size of a run for about a second, on the device of the study.

    Args:
        spec: The run.
        data: The prepared data.
        folder: An empty folder for the runs.

    Returns:
        The throughput; its rate is nan if a batch does not fit in memory.
    """
    path = folder / "data.safetensors"
    write_prepared(path, select_examples(data, max(MAX_EXAMPLES, spec.batch_size)))
    try:
        first = _time_steps(spec, path, folder / "first", 1).seconds
        timed = _time_steps(spec, path, folder / "timed", min(MAX_STEPS, max(1, int(SECONDS / first))))
    except UserError as error:
        if not is_out_of_memory(error) and "memory" not in str(error):
            raise
        return Throughput(spec.batch_size, math.nan, 0, 0)
    objective = build_objective(spec.model, spec.task, data, spec.seed)
    count = min(timed.micro_batch, spec.batch_size)
    inputs = objective.network_inputs(probe_batch(data.train, count=count))
    network = Autocast(objective.module, "cpu") if spec.training.precision == "bf16" else objective.module
    return Throughput(spec.batch_size, timed.examples / timed.seconds, count, saved_tensor_bytes(network, inputs))


class _Timing(NamedTuple):
    seconds: float
    examples: int
    """The last batch of an epoch may be smaller, so they may be fewer than the steps times the batch size."""

    micro_batch: int
    """Examples that are in the network at once."""


def _time_steps(spec: RunSpec, data: Path, path: Path, steps: int) -> _Timing:
    """Time so many steps, after as many to warm up."""
    run = RunDirectory(train(_with_budget(spec, 2 * steps, steps), data, path, Execution()))
    history = run.history(["train_seconds", "examples"])
    examples = int(history["examples"].diff().iloc[-1])
    return _Timing(float(history["train_seconds"].iloc[-1]), examples, int(run.summary()["environment"]["micro_batch"]))
