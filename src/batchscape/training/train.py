"""Train one run and write its directory."""

import hashlib
import logging
import math
import os
import shutil
import warnings
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from batchscape.config.budget import Budget
from batchscape.config.run import RunSpec
from batchscape.data.prepared import PreparedData, prepared_digest, read_prepared
from batchscape.errors import UserError, is_out_of_memory
from batchscape.io.run_directory import RunDirectory
from batchscape.optim.optimizers import build_optimizer, check_schedule
from batchscape.runtime.device import available_memory, choose_device
from batchscape.runtime.states import ALREADY_COMPLETE, RESUMED, record_state
from batchscape.tasks.build import build_objective
from batchscape.tasks.compatibility import has_batch_norm, supports_batch_size_one, validate_batch_size
from batchscape.tasks.objective import Measurement, Objective
from batchscape.training.checkpoint import read_checkpoint, read_state, run_key
from batchscape.training.distributed import ProcessGroup
from batchscape.training.environment import describe_environment, source_commit
from batchscape.training.execution import SINGLE_PROCESS, Execution
from batchscape.training.launcher import launch
from batchscape.training.lightning import DDPStrategy, environments, pl
from batchscape.training.module import TrainingModule
from batchscape.training.plan import StepPlan
from batchscape.training.recorder import AfterEvaluation, Recorder
from batchscape.training.tracking import NO_TRACKING, RunTracker, Tracking, TrackRun

log = logging.getLogger(__name__)


def train(
    spec: RunSpec,
    data: Path,
    directory: Path,
    execution: Execution = SINGLE_PROCESS,
    after_evaluation: AfterEvaluation | None = None,
    *,
    states: Sequence[Budget] = (),
    start: Path | None = None,
    tracking: Tracking = NO_TRACKING,
) -> Path:
    """Train one run on prepared data.

    A run that was killed resumes from its last complete checkpoint in `directory`, and ends with the bits that an
    uninterrupted run gives (on a CPU). It starts again if the specification, the data or `execution.code` differ;
    what is left there of another run is deleted. A complete run of the same code is not trained again.

    On CPUs the weights, the update norms and the history except for its times are a function of the specification, the
    data and the numbers of threads, devices and nodes, bit for bit. On a GPU, a batch of a network that supports it is
    split into micro-batches that fit in memory.

    Args:
        spec: All that decides the weights.
        data: A file written by `batchscape.data.prepared.write_prepared`.
        directory: The run's directory. When `train` returns it contains `history.csv`, `update_norms.npy`,
            `weights/{init,best,last,epochNNNNN}.safetensors` and, written last, `run.json`. A run whose loss is not
            finite is complete too, with the status `diverged`; it has no `best` if no epoch had a finite loss.
        execution: All that does not decide the weights, such as devices and the deadline.
        after_evaluation: Called in this process after each evaluation that does not end the run, with its number, from
            1, and the lowest validation loss so far. If it returns True, the run ends with the status `stopped`. A run
            that resumes may call it again for evaluations after its last checkpoint. Only for a single process.
        states: Points of the training at which the complete state is saved too, at the first evaluation from there on;
            see `RunDirectory.state_folder`.
        start: A checkpoint of another run from which this one begins, in place of the initial weights.
        tracking: The trackers that show the run while it trains; they change neither its numbers nor its course.

    Returns:
        `directory`.

    Raises:
        UserError: The data is missing or corrupt, the run does not fit the data or the memory, or the run stopped at
            the deadline.
        WorkerFailed: One of several processes failed.
        ValueError: `after_evaluation` is given for several processes.
    """
    if after_evaluation and execution.num_processes > 1:
        raise ValueError("after_evaluation is for runs of a single process")
    if execution.code and RunDirectory(directory).restore_if_complete(_run_key(spec, data, execution.code, start)):
        log.info("%s is already complete", directory.name)
        record_state(ALREADY_COMPLETE)
        return directory
    if execution.num_processes == 1:
        _train(spec, data, directory, execution, ProcessGroup(), states, start, tracking, after_evaluation)
        return directory
    torch.set_num_threads(execution.threads)
    # So that an invalid run fails here, with one line, not in each process.
    _, objective = build(spec, data, execution.num_processes)
    build_optimizer(objective.module, spec.optimizer, spec.learning_rate)
    arguments = {
        "spec": spec.model_dump_json(),
        "data": str(data),
        "directory": str(directory),
        "execution": asdict(execution),
        "states": [point.model_dump() for point in states],
        "start": None if start is None else str(start),
        "tracking": asdict(tracking),
    }
    launch(train_worker, arguments, execution.devices, execution.nodes)
    return directory


def train_worker(
    spec: str,
    data: str,
    directory: str,
    execution: dict[str, Any],
    states: list[dict[str, Any]],
    start: str | None,
    tracking: dict[str, Any],
) -> None:
    """Train as one of several processes that `launch` started; the arguments are those of `train`, as JSON."""
    settings = Execution(**execution)
    process_group = ProcessGroup(int(os.environ["RANK"]), settings.num_processes)
    points = list(map(Budget.model_validate, states))
    begin, tracked = None if start is None else Path(start), Tracking(**tracking)
    run = RunSpec.model_validate_json(spec)
    _train(run, Path(data), Path(directory), settings, process_group, points, begin, tracked)


def _train(
    spec: RunSpec,
    data: Path,
    directory: Path,
    execution: Execution,
    process_group: ProcessGroup,
    states: Sequence[Budget],
    start: Path | None,
    tracking: Tracking,
    after_evaluation: AfterEvaluation | None = None,
) -> None:
    torch.set_num_threads(execution.threads)
    prepared, objective = build(spec, data, process_group.size)
    num_parameters = sum(parameter.numel() for parameter in objective.module.parameters())
    run = RunDirectory(directory)
    key = _run_key(spec, data, execution.code, start)
    resumed = read_checkpoint(run.checkpoint_folder, key)
    checkpoint = resumed or (read_state(start) if start else None)
    if process_group.is_main_process:
        run.clear(last_epoch=checkpoint.history[-1]["epoch"] if checkpoint and checkpoint.history else 0)

    started = datetime.now(UTC)
    micro_batch = resumed.micro_batch if resumed else None
    module = TrainingModule(objective, prepared, spec, process_group, execution.jobs_per_gpu, micro_batch)
    plan = module.plan
    state_steps = {plan.first_evaluation(point) for point in states} - {None}
    recorder = Recorder(run, module, key, checkpoint, execution.deadline, after_evaluation, state_steps)
    tracker = RunTracker(tracking, spec, key) if tracking.trackers and process_group.is_main_process else None
    log.info(
        "%s: batch size %d, learning rate %g, seed %d; %d parameters, %d steps, %d in each epoch of %d examples",
        directory.name, spec.batch_size, spec.learning_rate, spec.seed,
        num_parameters, plan.total, plan.steps_per_epoch, len(prepared.train),
    )  # fmt: skip
    callbacks = [recorder, TrackRun(tracker, recorder)] if tracker else [recorder]
    trainer = make_trainer(module, execution, directory, *callbacks)
    if checkpoint:
        log.info("%s after step %d", "resuming" if resumed else "branching", checkpoint.step)
        if resumed and process_group.is_main_process:
            record_state(RESUMED, epoch=plan.epochs(checkpoint.step), step=checkpoint.step)
        stages = ("ready", "started", "processed", "completed")
        completed = dict.fromkeys(stages, bisect_right(plan.evaluations, checkpoint.step))
        trainer.fit_loop.epoch_progress.current.load_state_dict(completed)
    try:
        trainer.fit(module)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(_out_of_memory_message(module, directory.name)) from error
    log.info("%s after step %d; best evaluation: %s", recorder.status, module.step, recorder.best_evaluation)
    if not process_group.is_main_process:
        return
    summary = {
        **_summarize(recorder),
        "parameters": num_parameters,
        "batches_per_epoch": plan.steps_per_epoch,
        "training_examples": len(prepared.train),
        "validation_examples": len(prepared.validation),
        "test_examples": len(prepared.test or ()),
        "classes": list(prepared.spec.classes),
        "spec": spec.model_dump(mode="json"),
        "environment": {
            **describe_environment(module.device),
            "devices": execution.devices,
            "nodes": execution.nodes,
            "micro_batch": module.micro_batch,
        },
        "provenance": {
            "run_key": key,
            "source_commit": source_commit(),
            "data_sha256": prepared_digest(data),
            "started": started.isoformat(timespec="seconds"),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    }
    run.write_summary(summary)
    if tracker:
        tracker.finish(summary)
    shutil.rmtree(run.checkpoint_folder, ignore_errors=True)


def _out_of_memory_message(module: TrainingModule, run: str) -> str:
    """Return the message for a run that ran out of memory."""
    device, place = choose_device(module.spec.training.accelerator), "this machine"
    if device.type == "cuda":
        gib = available_memory(device, module.jobs_per_gpu) / 2**30
        place = f"the {torch.cuda.get_device_name(device)} ({gib:.1f} GiB for this job)"
    if module.step > 1:  # the one that fails counts
        return (
            f"{run}: out of memory after step {module.step - 1}; free memory of {place} and rerun the command to resume"
        )
    if module.supports_micro_batches:
        return (
            f"{run}: training does not fit in the memory of {place}, not even with small micro-batches; use a smaller "
            "network or smaller examples, or run fewer jobs at once"
        )
    return (
        f"grid.batch_sizes: a batch of {module.spec.batch_size} does not fit in the memory of {place}, and it cannot "
        "be split into micro-batches, since this network computes over the examples of a batch (as BatchNorm does); "
        "remove this batch size, or use a smaller network, smaller examples or more devices (resources.devices)"
    )


def _run_key(spec: RunSpec, data: Path, code: str, start: Path | None) -> str:
    """Return the key of a run; that of a branch depends on the state that it begins from."""
    origin = "" if start is None else hashlib.sha256(start.read_bytes()).hexdigest()
    return run_key(spec.model_dump_json(), prepared_digest(data), f"{code} {origin}".rstrip())


def build(spec: RunSpec, data: Path, num_processes: int) -> tuple[PreparedData, Objective]:
    """Read the data of a run and build its initial network, with its loss.

    Args:
        spec: The run.
        data: A file written by `batchscape.data.prepared.write_prepared`.
        num_processes: How many processes share a batch.

    Returns:
        The data, and the network with its initial weights, on the CPU, with its loss and metrics.

    Raises:
        UserError: The data is missing or corrupt, or the run does not fit it: a batch is larger than the training set
            or smaller than the number of processes, examples are augmented that are no images, there is no such
            accelerator, or the network cannot be built for this data or cannot train on the last batch.
    """
    prepared = read_prepared(data)
    num_examples = len(prepared.train)
    plan = StepPlan(spec, num_examples)
    validate_batch_size(spec.batch_size, prepared)
    if plan.max_batch_size > num_examples:
        raise UserError(
            f"arms: a run of batch size {spec.batch_size} has stages with a batch size of {plan.max_batch_size}, which "
            f"is more than the {num_examples} training examples; lower batch_size_factor, or set growth.max_batch_size"
        )
    for key in ("augment_flip", "augment_shift"):
        if getattr(spec.training, key) and prepared.spec.inputs != "images":
            raise UserError(f"training.{key}: is for images, and this data has {prepared.spec.inputs}; remove the key")
    if spec.batch_size < num_processes:
        raise UserError(
            f"resources.devices: a batch of {spec.batch_size} examples cannot be sharded over {num_processes} devices; "
            "use fewer devices or remove the batch size from grid.batch_sizes"
        )
    choose_device(spec.training.accelerator)
    objective = build_objective(spec.model, spec.task, prepared, spec.seed)
    if spec.schedule.warmup or spec.schedule.decay != "constant" or spec.stages:
        check_schedule(spec.optimizer, objective.module)
    # Without stages all epochs end alike.
    parts = plan.parts(0, plan.total if spec.stages else min(plan.total, plan.steps_per_epoch))
    smallest = min(min(part.sizes[0], part.sizes[-1]) for part in parts)
    if smallest < num_processes and spec.task.has_own_loss and has_batch_norm(objective.module):
        raise UserError(
            f"resources.devices: batch size {spec.batch_size} leaves a batch of {smallest} of the {num_examples} "
            f"training examples for {num_processes} devices, and with BatchNorm each needs one for its training_step; "
            "use fewer devices, or another batch size"
        )
    if smallest == 1:
        example = prepared.train.batch(slice(1), torch.device("cpu"))
        if not supports_batch_size_one(objective, example):
            raise UserError(
                f"grid.batch_sizes: {spec.batch_size} leaves a batch with one of the {num_examples} training "
                "examples, on which the BatchNorm of this network cannot train; use another batch size or "
                "data.validation_fraction"
            )
    return prepared, objective


def make_trainer(module: TrainingModule, execution: Execution, directory: Path, *callbacks: pl.Callback) -> pl.Trainer:
    """Return a Lightning trainer, whose epochs are the evaluation intervals of a run.

    It does nothing that the callbacks do themselves, and ignores a surrounding Slurm allocation.
    """
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # The loader yields one item per interval, so workers for it would only cost time.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message="The `srun` command is available")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # Lightning uses a name that torch has deprecated
    device, is_single = choose_device(module.spec.training.accelerator), execution.num_processes == 1
    return pl.Trainer(
        accelerator=device.type,
        devices=execution.devices,
        num_nodes=execution.nodes,
        strategy="auto" if is_single else GlobalBatchDDP(),
        max_epochs=len(module.plan.evaluations),
        default_root_dir=directory,
        callbacks=list(callbacks),
        plugins=[environments.LightningEnvironment() if is_single else environments.TorchElasticEnvironment()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        limit_val_batches=0,
    )


class GlobalBatchDDP(DDPStrategy):
    """Lightning's DDP without torch's wrapper: the module sums the gradients of a global batch itself."""

    def configure_ddp(self) -> None:
        """Leave the module as it is."""


def _without_nan(values: Mapping[str, float]) -> dict[str, float | None]:
    """Return values for JSON, which has no nan and no infinity, such as a metric of the user's own may be."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _columns(measurement: Measurement | None) -> dict[str, float]:
    return measurement.columns("") if measurement else {}


def _summarize(recorder: Recorder) -> dict[str, Any]:
    history, metrics = recorder.history, recorder.module.objective.metrics
    best = history[recorder.best_evaluation - 1] if recorder.best_evaluation else None
    finite_losses = [row["train_loss"] for row in history if math.isfinite(row["train_loss"])]
    return {
        "status": recorder.status,
        "evaluations": len(history),
        "steps": history[-1]["step"],
        "epochs": history[-1]["epoch"],
        "best_step": best["step"] if best else None,
        "best_epoch": best["epoch"] if best else None,
        "best_validation_loss": best["validation_loss"] if best else None,
        "validation_at_best": _without_nan({name: best[f"validation_{name}"] for name in metrics} if best else {}),
        "test_at_best": _without_nan(_columns(recorder.test)),
        "average_validation": _without_nan(_columns(recorder.average_validation)),
        "average_test": _without_nan(_columns(recorder.average_test)),
        "min_train_loss": min(finite_losses, default=None),
    }
