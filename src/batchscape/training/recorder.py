"""The record of a run: history, update norms and weights; it also says when the run ends and how."""

import logging
import math
import time
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from batchscape.training.module import TrainingModule
from batchscape.training.run_directory import RunDirectory, noise_is_measured
from batchscape.weights import Layers, distance_by_layer, write_weights

CONVERGED, DIVERGED, MAX_EPOCHS = "converged", "diverged", "max_epochs"

log = logging.getLogger(__name__)


class Recorder(pl.Callback):
    """Looks at the run once an epoch and writes it down in a run directory."""

    def __init__(self, directory: RunDirectory, patience: int, snapshots: tuple[int, ...]):
        self.directory = directory
        self.patience = patience
        self.snapshots = snapshots
        self.status = MAX_EPOCHS
        self.best_epoch: int | None = None
        self.best_loss = math.inf
        self.best_state: dict[str, torch.Tensor] = {}
        self.history: list[dict[str, Any]] = []
        self.update_norms: list[np.ndarray] = []

    def on_train_start(self, trainer: pl.Trainer, module: TrainingModule) -> None:
        parameters = dict(module.network.named_parameters())
        self.parameter_names = list(parameters)
        self.layers = Layers.of({name: parameter.numel() for name, parameter in parameters.items()})
        self.initial = self.before = module.parameter_vector().cpu().numpy()
        self._write("init", module.network.state_dict())

    def on_train_epoch_end(self, trainer: pl.Trainer, module: TrainingModule) -> None:
        epoch, result = trainer.current_epoch + 1, module.result
        started, cpu_started = time.perf_counter(), time.process_time()
        validation_loss, validation_accuracy = module.validate()
        validation_seconds = time.perf_counter() - started
        validation_cpu_seconds = time.process_time() - cpu_started

        gradient_norm, noise_scale = module.gradient_noise() if noise_is_measured(epoch) else (math.nan, math.nan)
        vector = module.parameter_vector().cpu().numpy()
        distance = distance_by_layer(self.initial, vector, self.layers)
        epoch_distance = distance_by_layer(self.before, vector, self.layers)
        self.before = vector
        self.update_norms.append(result.update_norms)
        self.history.append(
            {
                "epoch": epoch,
                "train_loss": result.loss,
                "train_accuracy": result.accuracy,
                "validation_loss": validation_loss,
                "validation_accuracy": validation_accuracy,
                "learning_rate": module.optimizers(use_pl_optimizer=False).param_groups[0]["lr"],
                "train_seconds": result.seconds,
                "train_cpu_seconds": result.cpu_seconds,
                "validation_seconds": validation_seconds,
                "validation_cpu_seconds": validation_cpu_seconds,
                "gradient_norm": gradient_norm,
                "noise_scale": noise_scale,
                "distance": float(np.linalg.norm(distance)),
                "epoch_distance": float(np.linalg.norm(epoch_distance)),
                **{f"distance/{name}": float(d) for name, d in zip(self.layers.names, distance, strict=True)},
                **{
                    f"epoch_distance/{name}": float(d)
                    for name, d in zip(self.layers.names, epoch_distance, strict=True)
                },
            }
        )
        log.info(
            "epoch %d: training loss %.6g, validation loss %.6g, validation accuracy %.4f, %.3f s",
            epoch, result.loss, validation_loss, validation_accuracy, result.seconds + validation_seconds,
        )  # fmt: skip

        if epoch in self.snapshots:
            self._write(RunDirectory.checkpoint_name(epoch), module.network.state_dict())
        if not (math.isfinite(result.loss) and math.isfinite(validation_loss)):
            self.status = DIVERGED
            trainer.should_stop = True
            return
        if validation_loss < self.best_loss:
            self.best_epoch, self.best_loss = epoch, validation_loss
            self.best_state = {name: tensor.clone() for name, tensor in module.network.state_dict().items()}
        elif epoch - self.best_epoch >= self.patience:
            self.status = CONVERGED
            trainer.should_stop = True

    def on_train_end(self, trainer: pl.Trainer, module: TrainingModule) -> None:
        if self.best_state:
            self._write("best", self.best_state)
        self._write("last", module.network.state_dict())
        self.directory.write_update_norms(np.concatenate(self.update_norms))
        self.directory.write_history(self.history)

    def _write(self, name: str, state: dict[str, torch.Tensor]) -> None:
        arrays = {key: tensor.detach().cpu().contiguous().numpy() for key, tensor in state.items()}
        write_weights(self.directory.weights_file(name), arrays, self.parameter_names)
