"""The critical batch size during training, by branching: a run continues with a multiple of its batch size."""

import gc
import hashlib
import logging
import math
import shutil
from bisect import bisect_right
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from batchscape.analysis.cache import CACHE, cached, cached_file
from batchscape.config.branching import NUM_EVALUATIONS, RATE_EXPONENTS
from batchscape.config.branching import BranchingConfig as Config
from batchscape.config.budget import Budget, Warmup, point_name
from batchscape.config.run import RunSpec
from batchscape.config.stages import StageConfig
from batchscape.errors import UserError
from batchscape.io.files import write_bytes
from batchscape.io.run_directory import RunDirectory
from batchscape.training.checkpoint import CHECKPOINT, read_checkpoint
from batchscape.training.execution import SINGLE_PROCESS, Execution
from batchscape.training.plan import StepPlan
from batchscape.training.train import train

log = logging.getLogger(__name__)


def specify_branch(spec: RunSpec, step: int, factor: int, num_examples: int, config: Config) -> RunSpec:
    """Return the specification of a branch: that of the run with one stage, which begins at the point.

    So a branch with a factor of 1 takes the steps of the run itself. The learning rate is multiplied by the rule; all
    other hyperparameters are those of the run.

    Args:
        spec: The run.
        step: Steps before the branch.
        factor: Multiple of the batch size.
        num_examples: Number of training examples.
        config: Section `branching` of the config.

    Raises:
        UserError: The branch begins within the warm-up, or a batch is larger than the training set.
    """
    plan, batch_size = StepPlan(spec, num_examples), factor * spec.batch_size
    if step < plan.warmup:
        raise UserError(
            f"branching.points: step {step} is within the warm-up of {plan.warmup} steps, so the learning rate of a "
            "branch is not known; use a later point"
        )
    if batch_size > num_examples:
        raise UserError(
            f"branching.factors: {factor} times batch size {spec.batch_size} is more than the {num_examples} training "
            f"examples; remove {factor}"
        )
    length = branch_examples(config, num_examples)
    stage = StageConfig(
        start=Warmup(steps=step),
        batch_size_factor=factor,
        learning_rate_factor=float(factor ** RATE_EXPONENTS[config.rule]),
    )
    training = spec.training.model_copy(
        update={
            "budget": Budget(examples=plan.examples(step) + length),
            "evaluate_every": Budget(examples=max(1, length // NUM_EVALUATIONS)),
            "patience": None,
            "checkpoints": (),
        }
    )
    # The warm-up is over; as a fraction of the budget of the branch it would be another one.
    schedule = spec.schedule.model_copy(update={"warmup": None})
    return spec.model_copy(update={"stages": (stage,), "training": training, "schedule": schedule})


def branch_examples(config: Config, num_examples: int) -> int:
    """Return the length of a branch in examples."""
    return config.length.examples or (config.length.epochs or 0) * num_examples


def smooth_losses(history: pd.DataFrame, start: int, length: int, smoothing: float) -> tuple[float, float]:
    """Return the mean training and validation loss at the end of a branch.

    Args:
        history: The rows of the evaluations of the branch, with columns examples, train_loss and validation_loss.
        start: Examples before the branch.
        length: Examples of the branch.
        smoothing: Share of the branch that is averaged.

    Returns:
        The mean of the training loss over evaluation intervals, weighted by how many of their examples are in that
        share, so that batch sizes with other intervals are comparable; and the mean validation loss of their
        evaluations.
    """
    intervals = history["examples"].diff().fillna(history["examples"] - start)
    weights = (history["examples"] - start - (1 - smoothing) * length).clip(0, intervals)
    train_loss = np.average(history["train_loss"], weights=weights)
    return float(train_loss), float(history["validation_loss"][weights > 0].mean())


def reached_step(run: RunDirectory, point: Budget) -> int | None:
    """Return the step of the first evaluation of a run from a point on; None if the run ended there or before."""
    summary = run.summary()
    plan = StepPlan(RunSpec.model_validate(summary["spec"]), summary["training_examples"])
    step = plan.first_evaluation(point)
    # A run saves no state at the evaluation after which it ends.
    return None if step is None or step >= summary["steps"] else step


def save_state(run: RunDirectory, data: Path, output: Path, point: Budget, execution: Execution) -> None:
    """Write the complete state of a run at a point, from which branches begin.

    A run that was trained with `states` has saved it. Otherwise, as if branching was enabled later, the run is trained
    again up to the point.

    Args:
        run: The run.
        data: The prepared data.
        output: The file, to which the state is moved; empty if the run did not reach the point.
        point: The point.
        execution: How it trains.
    """
    step, summary = reached_step(run, point), run.summary()
    prefix_path = output.parent / f"at{point_name(point)}-prefix"
    output.parent.mkdir(parents=True, exist_ok=True)
    if step is None:
        write_bytes(output, b"")
        return
    folder = run.state_folder(step)
    if read_checkpoint(folder, summary["provenance"]["run_key"]) is None:
        log.info("%s has not saved its state after step %d: training up to it", run.path.name, step)
        spec = specify_prefix(RunSpec.model_validate(summary["spec"]), step, summary["training_examples"])
        prefix = RunDirectory(prefix_path)
        if prefix.is_complete and not (prefix.state_folder(step) / CHECKPOINT).exists():
            shutil.rmtree(prefix.path)  # its state was moved by a job that was killed before it removed the rest
        train(spec, data, prefix.path, execution, states=[Budget(steps=step)])
        folder = prefix.state_folder(step)
    (folder / CHECKPOINT).replace(output)
    for used in (folder, prefix_path):
        shutil.rmtree(used, ignore_errors=True)


def cached_state(run: RunDirectory, data: Path, output: Path, point: Budget, execution: Execution) -> Path:
    """Return the file with the complete state of a run at a point, cached while the run and the code are the same.

    Args:
        run: The run.
        data: The prepared data.
        output: The file for the rows of the branches, beside which the state is cached.
        point: The point.
        execution: How it trains, if it has not saved the state, see `save_state`.
    """
    part, suffix = f"at{point_name(point)}-state", ".safetensors"
    write = partial(save_state, run, data, point=point, execution=execution)
    return cached_file(output, [execution.code], [run], write, part, suffix)


def specify_prefix(spec: RunSpec, step: int, num_examples: int) -> RunSpec:
    """Return the specification of a run that ends with the first evaluation after a step, and is the same until then.

    Args:
        spec: The run.
        step: A step after which it is evaluated.
        num_examples: Number of training examples.
    """
    plan = StepPlan(spec, num_examples)
    end = plan.evaluations[bisect_right(plan.evaluations, step)]
    training = spec.training.model_copy(update={"budget": Budget(steps=end), "patience": None})
    # As a fraction of the shorter budget the warm-up would be another one.
    warmup = Warmup(steps=plan.warmup) if plan.warmup else None
    schedule = spec.schedule.model_copy(update={"warmup": warmup})
    return spec.model_copy(update={"training": training, "schedule": schedule})


def train_branches(
    run: RunDirectory,
    data: Path,
    state: Path,
    output: Path,
    config: Config,
    point: Budget,
    factors: Sequence[int],
    key: Sequence[str],
    execution: Execution = SINGLE_PROCESS,
) -> pd.DataFrame:
    """Train the branches of a run from a point on, one after the other.

    The row of each is cached: a kill loses at most the branch that is training, which resumes from its checkpoint, and
    a new factor trains only its own branch.

    Args:
        run: The run.
        data: The prepared data.
        state: The state at the point, see `cached_state`.
        output: The file for the rows, beside which they are cached.
        config: Section `branching` of the config.
        point: Where the branches begin.
        factors: Multiples of the batch size.
        key: What the rows depend on besides the run and the state: the settings and the code.
        execution: How they train.

    Returns:
        A row for each factor, see `train_branch`.

    Raises:
        UserError: The state is corrupt, or a branch does not fit the run.
    """
    with state.open("rb") as stream:
        # A state that was made again may differ on a GPU, and branches are compared with that of factor 1.
        row_key = [*key, hashlib.file_digest(stream, "sha256").hexdigest()]
    rows = []
    for factor in factors:
        directory = output.parent / CACHE / f"at{point_name(point)}-x{factor}"
        train_one = partial(train_branch, run, data, state, directory, config, point, factor, execution)
        rows.append(cached(output, row_key, [run], train_one, directory.name))
        # What is left of the branch is its row.
        shutil.rmtree(directory, ignore_errors=True)
        gc.collect()  # Lightning modules are in reference cycles, together with their data
    return pd.concat(rows, ignore_index=True)


def train_branch(
    run: RunDirectory,
    data: Path,
    state: Path,
    directory: Path,
    config: Config,
    point: Budget,
    factor: int,
    execution: Execution = SINGLE_PROCESS,
) -> pd.DataFrame:
    """Train a branch of a run.

    Args:
        run: The run.
        data: The prepared data.
        state: The state at the point, see `cached_state`.
        directory: The directory of the branch, from which an interrupted one resumes.
        config: Section `branching` of the config.
        point: Where the branch begins.
        factor: Multiple of the batch size.
        execution: How it trains.

    Returns:
        One row: where the branch began, its batch size, learning rate and length, and its smoothed losses. These are
        nan if the run ended before the point, or if the branch diverged, which its status says.

    Raises:
        UserError: The state is corrupt, or the branch does not fit the run.
    """
    summary = run.summary()
    spec = RunSpec.model_validate(summary["spec"])
    num_examples = summary["training_examples"]
    plan = StepPlan(spec, num_examples)
    step, rate = reached_step(run, point), spec.learning_rate * factor ** RATE_EXPONENTS[config.rule]
    row = {
        "point": point_name(point),
        "factor": factor,
        "branch_batch_size": factor * spec.batch_size,
        "branch_learning_rate": rate,
    }
    values = ("examples", "epoch", "step", "branch_steps", "branch_examples", "train_loss", "validation_loss")
    if step is None:
        return pd.DataFrame([{**row, **dict.fromkeys(values, math.nan), "branch_status": "not reached"}])
    branch_spec = specify_branch(spec, step, factor, num_examples, config)
    branch = RunDirectory(train(branch_spec, data, directory, execution, start=state))
    history = branch.history(["step", "examples", "train_loss", "validation_loss"])
    before = plan.examples(step)
    status = "diverged" if branch.summary()["status"] == "diverged" else "completed"
    losses = (math.nan, math.nan)
    if status == "completed":
        losses = smooth_losses(history, before, branch_examples(config, num_examples), config.smoothing)
    row |= {
        "examples": before,
        "epoch": plan.epochs(step),
        "step": step,
        "branch_steps": history["step"].iloc[-1] - step,
        "branch_examples": history["examples"].iloc[-1] - before,
        "train_loss": losses[0],
        "validation_loss": losses[1],
        "branch_status": status,
    }
    return pd.DataFrame([row])
