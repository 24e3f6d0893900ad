"""`train`: from what a run is to its directory."""

import logging
import math
import shutil
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import LightningEnvironment

from batchscape.config.run import RunSpec
from batchscape.data.prepared import prepared_digest, read_prepared
from batchscape.device import choose_device
from batchscape.errors import UserError
from batchscape.models import build_network
from batchscape.network_check import takes_one_image
from batchscape.objective import outputs_for
from batchscape.training.environment import describe_environment, source_commit
from batchscape.training.module import TrainingModule
from batchscape.training.recorder import Recorder
from batchscape.training.resume import identity, read_state
from batchscape.training.run_directory import RunDirectory

log = logging.getLogger(__name__)


def train(spec: RunSpec, data: Path, directory: Path, threads: int = 1, code: str = "") -> Path:
    """Train one run on prepared data and return its directory.

    `data` is a file that `batchscape.data.prepared.write_prepared` made. If this very run was killed in `directory`, it
    goes on from the last whole state that it kept there; `code` names the version of the code, and with another one,
    other data or another specification it begins anew. What else an earlier run left there is deleted first. The
    directory then holds `weights/{init,best,last,epochNNNNN}.safetensors`, `update_norms.npy`, `history.csv` and,
    written last, `run.json`. A run whose loss is not finite ends with the status `diverged` and is
    as whole as any other (it has no `best` if no epoch had a finite loss). On a CPU the weights, the update norms and
    the history but for its times are a function of (spec, data, threads), bit for bit.

    Raises UserError when the data is missing or damaged, or the run does not fit it.
    """
    torch.set_num_threads(threads)
    prepared = read_prepared(data)
    count = len(prepared.train_labels)
    if spec.batch_size > count:
        raise UserError(
            f"grid.batch_sizes: {spec.batch_size} is more than the {count} training images; "
            f"take it out or lower data.validation_fraction"
        )
    device = choose_device(spec.training.accelerator)
    outputs = outputs_for(spec.training.loss, len(prepared.classes))
    network = build_network(spec.model, prepared.train_images.shape[1:], outputs, spec.seed)
    if count % spec.batch_size == 1 or spec.batch_size == 1:
        one = torch.from_numpy(prepared.train_images[:1])
        if not takes_one_image(network, one):
            raise UserError(
                f"grid.batch_sizes: {spec.batch_size} makes a batch of a single one of the {count} training images, on "
                "which the BatchNorm of this network cannot train; choose another one or data.validation_fraction"
            )
    size = {
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "batches_per_epoch": math.ceil(count / spec.batch_size),
        "training_examples": count,
        "validation_examples": len(prepared.validation_labels),
        "classes": list(prepared.classes),
    }
    run = RunDirectory(directory)
    belongs_to = identity(spec.model_dump_json(), prepared_digest(data), code)
    state = read_state(run.resume_folder, belongs_to)
    run.clear(keep_snapshots_to=state.epoch if state else 0)

    started = datetime.now(UTC)
    recorder = Recorder(run, spec.training.patience, spec.training.snapshots, belongs_to, state)
    module = TrainingModule(network, prepared, spec)
    log.info(
        "%s: batch size %d, learning rate %g, seed %d; %d parameters, %d batches an epoch of %d examples",
        directory.name, spec.batch_size, spec.learning_rate, spec.seed, *list(size.values())[:3],
    )  # fmt: skip
    trainer = _trainer(spec, device, directory, recorder)
    if state:
        log.info("going on after epoch %d", state.epoch)
        for moment in ("ready", "started", "processed", "completed"):
            setattr(trainer.fit_loop.epoch_progress.current, moment, state.epoch)
    trainer.fit(module)
    log.info("%s after %d epochs; best epoch: %s", recorder.status, len(recorder.history), recorder.best_epoch)

    run.write_summary(
        {
            **_summary(recorder),
            **size,
            "spec": spec.model_dump(mode="json"),
            "environment": describe_environment(module.device),
            "provenance": {
                "source_commit": source_commit(),
                "data_sha256": prepared_digest(data),
                "started": started.isoformat(timespec="seconds"),
                "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            },
        }
    )
    shutil.rmtree(run.resume_folder, ignore_errors=True)
    return directory


def _trainer(spec: RunSpec, device: torch.device, directory: Path, recorder: Recorder) -> pl.Trainer:
    """Lightning with everything off that the recorder does itself, and deaf to a Slurm job around it."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    # The loader gives one order an epoch, so workers for it would only cost.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # Lightning's use of a name that torch renames
    return pl.Trainer(
        accelerator=device.type,
        devices=1,
        max_epochs=spec.training.max_epochs,
        default_root_dir=directory,
        callbacks=[recorder],
        plugins=[LightningEnvironment()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        limit_val_batches=0,
    )


def _summary(recorder: Recorder) -> dict[str, Any]:
    history = recorder.history
    best = history[recorder.best_epoch - 1] if recorder.best_epoch else None
    finite_losses = [row["train_loss"] for row in history if math.isfinite(row["train_loss"])]
    return {
        "status": recorder.status,
        "epochs": len(history),
        "best_epoch": recorder.best_epoch,
        "least_validation_loss": best["validation_loss"] if best else None,
        "validation_accuracy_at_best": best["validation_accuracy"] if best else None,
        "least_train_loss": min(finite_losses, default=None),
    }
