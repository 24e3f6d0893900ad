"""`train`: from what a run is to its directory."""

import logging
import math
import os
import shutil
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

from batchscape.config.run import RunSpec
from batchscape.data.prepared import PreparedData, prepared_digest, read_prepared
from batchscape.errors import UserError, is_out_of_memory
from batchscape.io.run_directory import RunDirectory
from batchscape.models.build import build_network
from batchscape.runtime.device import available_memory, choose_device
from batchscape.tasks.compatibility import supports_batch_size_one, validate_batch_size
from batchscape.tasks.losses import num_outputs
from batchscape.training.checkpoint import identity, read_checkpoint
from batchscape.training.distributed import ProcessGroup
from batchscape.training.environment import describe_environment, source_commit
from batchscape.training.launcher import launch
from batchscape.training.lightning import DDPStrategy, environments, pl
from batchscape.training.module import TrainingModule
from batchscape.training.recorder import Recorder

log = logging.getLogger(__name__)


def train(
    spec: RunSpec,
    data: Path,
    directory: Path,
    threads: int = 1,
    code: str = "",
    devices: int = 1,
    nodes: int = 1,
    ends: float | None = None,
    jobs_per_gpu: int = 1,
) -> Path:
    """Train one run on prepared data and return its directory.

    `data` is a file that `batchscape.data.prepared.write_prepared` made. If this very run was killed in `directory`, it
    goes on from the last whole state that it kept there; `code` names the version of the code, and with another one,
    other data or another specification it begins anew. What else an earlier run left there is deleted first. If the
    run is whole there, and made by a `code` that is named, it stays. The directory then holds
    `weights/{init,best,last,epochNNNNN}.safetensors`, `update_norms.npy`, `history.csv` and, written last, `run.json`.
    A run whose loss is not finite ends with the status `diverged` and is as whole as any other (it has no `best` if no
    epoch had a finite loss).

    `devices` processes on each of `nodes` share each batch, each with `threads` threads and, where it trains on GPUs,
    one GPU. Their number changes the result only by the rounding of sums, but for dropout, of which each process draws
    its own. On CPUs the weights, the update norms and the history but for its times are a function of (spec, data,
    threads, devices, nodes), bit for bit.

    `ends` is when the process will be ended, as by a time limit, in seconds since 1970: the run stops before that, and
    a later call goes on from there.

    On a GPU a batch that may be cut goes through the network in micro-batches that fit in memory: in this job's share
    of it, where `jobs_per_gpu` use the GPU.

    Raises UserError when the data is missing or damaged, the run does not fit it or the memory, or it stops before its
    end, and WorkerFailed when one of several processes failed.
    """
    if code and RunDirectory(directory).restore_if_complete(_identity(spec, data, code)):
        log.info("%s is already complete", directory.name)
        return directory
    if devices * nodes == 1:
        _train(spec, data, directory, threads, code, ends, jobs_per_gpu, ProcessGroup())
        return directory
    torch.set_num_threads(threads)
    build(spec, data, devices * nodes)  # what the processes would refuse is refused here, in one line
    paths = {"data": str(data), "directory": str(directory)}
    how = {"threads": threads, "code": code, "devices": devices, "nodes": nodes, "ends": ends}
    how["jobs_per_gpu"] = jobs_per_gpu
    launch(train_worker, {"spec": spec.model_dump_json(), **paths, **how}, devices, nodes)
    return directory


def train_worker(
    spec: str,
    data: str,
    directory: str,
    threads: int,
    code: str,
    devices: int,
    nodes: int,
    ends: float | None,
    jobs_per_gpu: int,
) -> None:
    """Train as one of several processes that `launch` started."""
    process_group, what = ProcessGroup(int(os.environ["RANK"]), devices * nodes), RunSpec.model_validate_json(spec)
    _train(what, Path(data), Path(directory), threads, code, ends, jobs_per_gpu, process_group, devices, nodes)


def _train(
    spec: RunSpec,
    data: Path,
    directory: Path,
    threads: int,
    code: str,
    ends: float | None,
    jobs_per_gpu: int,
    process_group: ProcessGroup,
    devices: int = 1,
    nodes: int = 1,
) -> None:
    torch.set_num_threads(threads)
    prepared, network = build(spec, data, process_group.size)
    size = {
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "batches_per_epoch": math.ceil(len(prepared.train_labels) / spec.batch_size),
        "training_examples": len(prepared.train_labels),
        "validation_examples": len(prepared.validation_labels),
        "classes": list(prepared.classes),
    }
    run = RunDirectory(directory)
    belongs_to = _identity(spec, data, code)
    state = read_checkpoint(run.checkpoint_folder, belongs_to)
    if process_group.is_main_process:
        run.clear(keep_snapshots_to=state.epoch if state else 0)

    started = datetime.now(UTC)
    recorder = Recorder(run, spec.training.patience, spec.training.checkpoints, belongs_to, state, ends)
    module = TrainingModule(network, prepared, spec, process_group, jobs_per_gpu, state.micro_batch if state else None)
    log.info(
        "%s: batch size %d, learning rate %g, seed %d; %d parameters, %d batches an epoch of %d examples",
        directory.name, spec.batch_size, spec.learning_rate, spec.seed, *list(size.values())[:3],
    )  # fmt: skip
    trainer = make_trainer(spec, devices, nodes, directory, recorder)
    if state:
        log.info("going on after epoch %d", state.epoch)
        for moment in ("ready", "started", "processed", "completed"):
            setattr(trainer.fit_loop.epoch_progress.current, moment, state.epoch)
    try:
        trainer.fit(module)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(_out_of_memory(module, directory.name, len(recorder.history))) from error
    log.info("%s after %d epochs; best epoch: %s", recorder.status, len(recorder.history), recorder.best_epoch)
    if not process_group.is_main_process:
        return
    run.write_summary(
        {
            **_summary(recorder),
            **size,
            "spec": spec.model_dump(mode="json"),
            "environment": {
                **describe_environment(module.device),
                "devices": devices,
                "nodes": nodes,
                "micro_batch": module.micro_batch,
            },
            "provenance": {
                "identity": belongs_to,
                "source_commit": source_commit(),
                "data_sha256": prepared_digest(data),
                "started": started.isoformat(timespec="seconds"),
                "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            },
        }
    )
    shutil.rmtree(run.checkpoint_folder, ignore_errors=True)


def _out_of_memory(module: TrainingModule, run: str, epochs: int) -> str:
    """Return what to say of a run that has trained some epochs and for which the memory does not suffice."""
    device, where = choose_device(module.spec.training.accelerator), "this machine"
    if device.type == "cuda":
        gib = available_memory(device, module.jobs_per_gpu) / 2**30
        where = f"the {torch.cuda.get_device_name(device)} ({gib:.1f} GiB for this job)"
    if epochs:
        return f"{run}: out of memory after epoch {epochs}; free memory of {where}, then the same command resumes"
    if module.supports_micro_batches:
        return (
            f"{run}: training does not fit in the memory of {where}, not even with a small part of a batch at a time; "
            "use a smaller network or smaller images, or run fewer jobs at once"
        )
    return (
        f"grid.batch_sizes: a batch of {module.spec.batch_size} does not fit in the memory of {where}, and it cannot "
        "be cut, for this network computes over the examples of a batch (as BatchNorm does); take it out, or use a "
        "smaller network, smaller images or more devices (resources.devices)"
    )


def _identity(spec: RunSpec, data: Path, code: str) -> str:
    return identity(spec.model_dump_json(), prepared_digest(data), code)


def build(spec: RunSpec, data: Path, processes: int) -> tuple[PreparedData, nn.Module]:
    """Return the data and the initial network of a run. Raises UserError where they do not fit it, or one another."""
    prepared = read_prepared(data)
    count = len(prepared.train_labels)
    validate_batch_size(spec.batch_size, prepared)
    if spec.batch_size < processes:
        raise UserError(
            f"resources.devices: {processes} in all cannot share a batch of {spec.batch_size} images; lower it or take "
            "the batch size out of the grid"
        )
    choose_device(spec.training.accelerator)
    outputs = num_outputs(spec.training.loss, len(prepared.classes))
    network = build_network(spec.model, prepared.train_images.shape[1:], outputs, spec.seed)
    if count % spec.batch_size == 1 or spec.batch_size == 1:
        one = torch.from_numpy(prepared.train_images[:1])
        if not supports_batch_size_one(network, one):
            raise UserError(
                f"grid.batch_sizes: {spec.batch_size} makes a batch of a single one of the {count} training images, on "
                "which the BatchNorm of this network cannot train; choose another one or data.validation_fraction"
            )
    return prepared, network


def make_trainer(spec: RunSpec, devices: int, nodes: int, directory: Path, callback: pl.Callback) -> pl.Trainer:
    """Lightning with everything off that the callback does itself, and deaf to a Slurm job around it."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # The loader gives one order an epoch, so workers for it would only cost.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message="The `srun` command is available")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # Lightning's use of a name that torch renames
    device, alone = choose_device(spec.training.accelerator), devices * nodes == 1
    return pl.Trainer(
        accelerator=device.type,
        devices=devices,
        num_nodes=nodes,
        strategy="auto" if alone else GlobalBatchDDP(),
        max_epochs=spec.training.max_epochs,
        default_root_dir=directory,
        callbacks=[callback],
        plugins=[environments.LightningEnvironment() if alone else environments.TorchElasticEnvironment()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        limit_val_batches=0,
    )


class GlobalBatchDDP(DDPStrategy):
    """Lightning's DDP but for torch's wrapper around the module, which itself sums the gradients of a global batch."""

    def configure_ddp(self) -> None:
        pass


def _summary(recorder: Recorder) -> dict[str, Any]:
    history = recorder.history
    best = history[recorder.best_epoch - 1] if recorder.best_epoch else None
    finite_losses = [row["train_loss"] for row in history if math.isfinite(row["train_loss"])]
    return {
        "status": recorder.status,
        "epochs": len(history),
        "best_epoch": recorder.best_epoch,
        "best_validation_loss": best["validation_loss"] if best else None,
        "validation_accuracy_at_best": best["validation_accuracy"] if best else None,
        "min_train_loss": min(finite_losses, default=None),
    }
