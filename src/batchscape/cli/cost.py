"""The estimated time of the trainings of a study on this machine, from a few training steps."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from batchscape.config.budget import Budget
from batchscape.config.run import RunSpec
from batchscape.config.task import ClassificationConfig, TaskConfig
from batchscape.data.dataset import Dataset
from batchscape.data.inspect import Inspection
from batchscape.data.prepared import PreparedData, read_prepared, write_prepared
from batchscape.data.spec import SIDES, DataSpec
from batchscape.errors import UserError
from batchscape.io.run_directory import RunDirectory
from batchscape.models.build import apply_network
from batchscape.runtime.duration import format_duration
from batchscape.runtime.user_code import summarize_error
from batchscape.study.plan import TrainingGroup
from batchscape.study.study import Study
from batchscape.tasks.build import build_objective
from batchscape.tasks.compatibility import NUM_SPLIT_EXAMPLES, probe_batch, require_choice_of_optimizer
from batchscape.tasks.objective import SupervisedObjective
from batchscape.tasks.task import check_functions
from batchscape.training.train import train

# Per timed batch size: batches of an epoch, and epochs, of which the first warms up.
NUM_BATCHES, NUM_EPOCHS = 4, 3
# Larger batches are not needed to measure the time per example.
MAX_FIRST_BATCH_SIZE, BATCH_SIZE_RATIO = 32, 4
# If the first batch size takes longer, a second one is not timed.
TIMEOUT_SECONDS = 5.0
WITHOUT_PATIENCE = ("timing", "branch")


@dataclass(frozen=True)
class Pace:
    """Seconds of a training per batch, per training example, and per validation example."""

    batch: float
    example: float
    validation_example: float

    def epoch(self, batch_size: int, num_train: int, num_validation: float) -> float:
        """Return the seconds of an epoch."""
        num_batches = math.ceil(num_train / batch_size)
        return num_batches * self.batch + num_train * self.example + num_validation * self.validation_example


def fit_pace(seconds: Mapping[int, float], validation_example: float) -> Pace:
    """Fit the pace to the measured seconds of a batch, by batch size, such that no part of it is negative."""
    small, large = min(seconds), max(seconds)
    if small == large:
        return Pace(0.0, seconds[small] / small, validation_example)
    example = max(0.0, (seconds[large] - seconds[small]) / (large - small))
    example = min(example, seconds[small] / small)
    return Pace(seconds[small] - example * small, example, validation_example)


def total_seconds(
    trainings: list[TrainingGroup], pace: Pace, num_train: int, num_validation: int, patience: float = math.inf
) -> float:
    """Return the seconds of all trainings one after another.

    Args:
        trainings: The trainings.
        pace: How fast they are.
        num_train: Number of training examples.
        num_validation: Number of validation examples.
        patience: Each training ends so many evaluations after its first one, if its budget reaches so far, except for
            timings and branches, which have no patience; inf: each spends its budget.
    """
    total = 0.0
    for each in trainings:
        budget = each.budget.in_epochs(each.batch_size, num_train)
        interval = each.evaluate_every.in_epochs(each.batch_size, num_train)
        if each.part not in WITHOUT_PATIENCE:
            budget = min(budget, (1 + patience) * interval)
        per_epoch = pace.epoch(each.batch_size, num_train, each.evaluations * num_validation / interval)
        total += each.count * budget * per_epoch
    return total


def describe_cost(study: Study, inspection: Inspection) -> list[str]:
    """Return lines with the estimated time of all trainings and its basis, or why there is no estimate.

    `inspection` is what is known about the data before it is prepared. Raises UserError if the network, the loss or a
    metric is invalid.
    """
    hint = "; run `batchscape run FILE prepare --cores 4`, then `check` measures it"
    try:
        sample, counts = _sample_data(study, inspection)
        if sample is None:
            return [f"time: unknown before the data is prepared{hint}"]
        _test_functions(study, sample)
        pace, device = _measure_pace(study, sample)
    except UserError as error:
        if str(error).startswith(("model.", "task.", "optimizer.")):
            raise
        return [f"time: not estimated ({error})"]
    except Exception as error:  # of custom code
        return [f"time: not estimated, because a few steps of training failed: {summarize_error(error)}"]
    sizes = sorted({min(study.grid.batch_sizes), max(study.grid.batch_sizes)})
    basis = f"rough estimate from a few steps on one {device}"
    if counts is None:
        epochs = _format_epochs(pace, sizes, 1000, 0)
        return [
            f"time ({basis}): an epoch of 1,000 examples takes {epochs}; the number of examples is not known yet{hint}"
        ]
    longest, patience = total_seconds(study.plan.trainings, pace, *counts), study.training.patience
    total, shortest = f"at most {format_duration(longest)}", longest
    if patience is not None:
        shortest = total_seconds(study.plan.trainings, pace, *counts, patience)
    if shortest < longest:
        total = (
            f"from {format_duration(shortest)} to {format_duration(longest)}, depending on when they stop improving "
            f"(training.patience: {patience})"
        )
    return [
        f"time ({basis}): an epoch takes {_format_epochs(pace, sizes, *counts)}; all trainings one after another take "
        f"{total}; analyses and the startup of each job are not included"
    ]


def _format_epochs(pace: Pace, sizes: list[int], num_train: int, num_validation: int) -> str:
    return ", ".join(f"{pace.epoch(size, num_train, num_validation):.2g} s at batch size {size}" for size in sizes)


def _sample_data(study: Study, inspection: Inspection) -> tuple[PreparedData | None, tuple[int, int] | None]:
    """Return examples like those of the study, and the numbers of training and validation examples; None if unknown."""
    data = read_current_data(study, inspection)
    if data is not None:
        return data, (len(data.train), len(data.validation))
    if inspection.spec is None:
        return None, None
    spec = replace(inspection.spec, target_variance=dict.fromkeys(SIDES, 1.0))
    examples = _draw_examples(spec, max(20, 2 * len(spec.classes)), inspection.targets)
    return PreparedData(spec, examples, examples, None), inspection.counts


def read_current_data(study: Study, inspection: Inspection) -> PreparedData | None:
    """Return the prepared data of a study; None if it is not prepared, or if its source or task is edited since then.

    An edit that changes neither what an example is nor the classes is not noticed.
    """
    path = Path(study.paths.prepared_data)
    if not path.exists():
        return None
    data, now = read_prepared(path), inspection.spec
    parts = ("inputs", "shape", "targets", "classes", "target_shape", "categories")
    is_current = now is None or all(getattr(now, part) == getattr(data.spec, part) for part in parts)
    return data if is_current else None


def _draw_examples(spec: DataSpec, count: int, targets: np.ndarray | None) -> Dataset:
    """Return random inputs with the targets that they may have, of which numeric ones are given."""
    rng = np.random.default_rng(0)
    match spec.inputs:
        case "images":
            inputs = rng.integers(0, 256, (count, *spec.shape[1:], spec.shape[0]), dtype=np.uint8)
        case "tokens":
            length = spec.shape[0] + (spec.targets == "next_token")
            inputs = rng.integers(0, spec.vocabulary, (count, length)).astype(np.int32)
        case _:
            inputs = rng.normal(size=(count, *spec.shape)).astype(np.float32)
    arrays: dict[str, np.ndarray] = {"inputs": inputs}
    if spec.inputs == "columns":
        arrays["categories"] = rng.integers(0, spec.categories, (count, len(spec.categories)), dtype=np.int32)
    if spec.targets == "class":
        arrays["targets"] = np.arange(count) % len(spec.classes)
    elif spec.targets == "numbers":
        assert targets is not None  # whatever knows the spec of numeric targets knows some of them
        arrays["targets"] = np.resize(targets, (count, *spec.target_shape))
    return Dataset.from_numpy(spec, arrays)


def _test_functions(study: Study, sample: PreparedData) -> None:
    """Raise UserError if a loss, a metric or a network of the user is invalid, as before any training."""
    if not (":" in study.model.name or study.task.custom_code):
        return
    objective = build_objective(study.model, study.task, sample, seed=0)
    require_choice_of_optimizer(objective.module, study.model.name, study.names_optimizer)
    if not isinstance(objective, SupervisedObjective):
        return
    batch = probe_batch(sample.train, count=NUM_SPLIT_EXAMPLES)
    outputs = apply_network(objective.module, batch.inputs, study.model.name)
    if isinstance(outputs, torch.Tensor) and outputs.shape == (len(batch), *objective.task.output_shape):
        check_functions(study.task, objective.task, outputs, batch.targets)


def weight_each_class(task: TaskConfig, spec: DataSpec) -> TaskConfig:
    """Return a task that takes the same time, for examples that may lack a class.

    Balanced weights are not defined for them.
    """
    if isinstance(task, ClassificationConfig) and task.class_weights == "balanced":
        return task.model_copy(update={"class_weights": dict.fromkeys(spec.classes, 1.0)})
    return task


def _measure_pace(study: Study, sample: PreparedData) -> tuple[Pace, str]:
    """Return the pace of a training of the study on this machine, and the name of the device."""
    first = min(MAX_FIRST_BATCH_SIZE, min(study.grid.batch_sizes))
    second = min(BATCH_SIZE_RATIO * first, max(study.grid.batch_sizes))
    training = study.training.model_copy(
        update={
            "budget": Budget(epochs=NUM_EPOCHS),
            "evaluate_every": Budget(epochs=1),
            "patience": NUM_EPOCHS,
            "checkpoints": (),
        }
    )
    seconds: dict[int, float] = {}
    start = time.monotonic()
    for batch_size in sorted({first, second}):
        if seconds and time.monotonic() - start > TIMEOUT_SECONDS:
            break
        spec = RunSpec(
            batch_size=batch_size,
            learning_rate=study.comparison.fixed_learning_rate,
            seed=study.grid.seeds[0],
            model=study.model,
            task=weight_each_class(study.task, sample.spec),
            training=training,
            optimizer=study.optimizer,
            schedule=study.schedule,
        )
        num_examples = NUM_BATCHES * batch_size
        with TemporaryDirectory(prefix="batchscape-check-") as folder:
            data = Path(folder) / "data.safetensors"
            write_prepared(data, _resize(sample, num_examples))
            run = RunDirectory(train(spec, data, Path(folder) / "run"))
            history = run.history(["train_seconds", "validation_seconds"])
            device = run.summary()["environment"]["device"]
        if len(history) > 1:  # a run that diverges at once has only its first epoch
            history = history.iloc[1:]
        seconds[batch_size] = float(history["train_seconds"].median()) / NUM_BATCHES
        validation_example = float(history["validation_seconds"].median()) / num_examples
    return fit_pace(seconds, validation_example), device


def _resize(data: PreparedData, count: int) -> PreparedData:
    """Return data with this many training and validation examples, repeated as often as necessary."""
    train, validation = (
        side[torch.from_numpy(np.resize(np.arange(len(side)), count))] for side in (data.train, data.validation)
    )
    return PreparedData(data.spec, train, validation, None)
