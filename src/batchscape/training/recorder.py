"""The record of a run: history, update norms, weights and checkpoints; it also decides when the run ends."""

import logging
import math
import time
from typing import Any

import numpy as np
import torch

from batchscape.errors import UserError
from batchscape.io.run_directory import RunDirectory, is_noise_scale_epoch
from batchscape.io.weights import Layers, distance_by_layer, write_weights
from batchscape.runtime.states import EPOCH, STOPPED, record_state
from batchscape.tasks.objective import Measurement
from batchscape.training.checkpoint import TrainingState, write_checkpoint
from batchscape.training.lightning import pl
from batchscape.training.module import TrainingModule

# Seconds between two checkpoints at least: the most that a killed run loses, besides the epoch that it was in.
CHECKPOINT_INTERVAL = 15.0
# Seconds that a run needs to stop: to write its checkpoint, and for its processes to end.
SHUTDOWN_TIME = 20.0
# Before a deadline, the next epoch is assumed to take this many times as long as the longest one so far.
EPOCH_TIME_SAFETY_FACTOR = 1.5

CONVERGED, DIVERGED, MAX_EPOCHS = "converged", "diverged", "max_epochs"

log = logging.getLogger(__name__)


class Recorder(pl.Callback):
    """Records a run once an epoch, saves its checkpoints, and stops it early."""

    def __init__(
        self,
        directory: RunDirectory,
        module: TrainingModule,
        run_key: str,
        checkpoint: TrainingState | None = None,
        deadline: float | None = None,
    ):
        """Record the run of `module` in `directory`, from the beginning or from a `checkpoint` on.

        `run_key` identifies the run in its checkpoints. `deadline` is that of `Execution`.
        """
        self.directory = directory
        self.module = module
        self.run_key = run_key
        self.checkpoint = checkpoint
        self.deadline = math.inf if deadline is None else deadline
        self.training = module.spec.training
        self.status = MAX_EPOCHS
        self.best_epoch: int | None = None
        self.test: Measurement | None = None
        self.best_loss = math.inf
        self.best_state: dict[str, torch.Tensor] = {}
        self.history: list[dict[str, Any]] = []
        self.update_norms: list[np.ndarray] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        parameters = dict(self.module.network.named_parameters())
        self.parameter_names = list(parameters)
        self.layers = Layers.of({name: parameter.numel() for name, parameter in parameters.items()})
        self.initial_weights = self.previous_weights = self._weights()
        self._write_weights("init")
        if self.checkpoint:
            self._restore(self.checkpoint)
        self.last_checkpoint_time = self.epoch_start = time.perf_counter()
        self.longest_epoch = 0.0

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        module, epoch, result = self.module, trainer.current_epoch + 1, self.module.result
        started, cpu_started = time.perf_counter(), time.process_time()
        validation = module.validate()
        validation_seconds = time.perf_counter() - started
        validation_cpu_seconds = module.all_reduce_sum(time.process_time() - cpu_started)

        gradient_norm, noise_scale = math.nan, math.nan
        if is_noise_scale_epoch(epoch) and module.process_group.is_main_process:
            gradient_norm, noise_scale = module.noise_scale()
        weights = self._weights()
        distance = distance_by_layer(self.initial_weights, weights, self.layers)
        epoch_distance = distance_by_layer(self.previous_weights, weights, self.layers)
        self.previous_weights = weights
        self.update_norms.append(result.update_norms)
        self.history.append(
            {
                "epoch": epoch,
                **result.measurement.columns("train_"),
                **validation.columns("validation_"),
                "learning_rate": module.optimizer.param_groups[0]["lr"],
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
        train_loss, validation_loss = result.measurement.loss, validation.loss
        metrics = "".join(f", validation {name} {value:.6g}" for name, value in validation.metrics.items())
        log.info(
            "epoch %d: training loss %.6g, validation loss %.6g%s, %.3f s",
            epoch, train_loss, validation_loss, metrics, result.seconds + validation_seconds,
        )  # fmt: skip
        if module.process_group.is_main_process:
            losses = {"train_loss": train_loss, "validation_loss": validation_loss}
            record_state(EPOCH, epoch=epoch, max_epochs=self.training.max_epochs, **losses)

        if epoch in self.training.checkpoints:
            self._write_weights(RunDirectory.checkpoint_name(epoch))
        if not (math.isfinite(train_loss) and math.isfinite(validation_loss)):
            self.status = DIVERGED
            trainer.should_stop = True
            return
        if validation_loss < self.best_loss:
            self.best_epoch, self.best_loss = epoch, validation_loss
            self.best_state = {name: tensor.clone() for name, tensor in module.network.state_dict().items()}
        elif self.best_epoch is not None and epoch - self.best_epoch >= self.training.patience:
            self.status = CONVERGED
            trainer.should_stop = True
            return
        if module.process_group.is_main_process and epoch < self.training.max_epochs:
            self._maybe_save_checkpoint(epoch)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.test = self._test_best()
        if not self.module.process_group.is_main_process:
            return
        if self.best_state:
            self._write_weights("best", self.best_state)
        self._write_weights("last")
        self.directory.write_update_norms(np.concatenate(self.update_norms))
        self.directory.write_history(self.history)

    def _test_best(self) -> Measurement | None:
        """Return loss and metrics of the best weights on the test set; None without either. All processes take part."""
        network = self.module.network
        if not self.best_state or self.module.data.test is None:
            return None
        last = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        network.load_state_dict(self.best_state)
        try:
            return self.module.test()
        finally:
            network.load_state_dict(last)

    def _maybe_save_checkpoint(self, epoch: int) -> None:
        """Save a checkpoint if the last one is old or the deadline near.

        Raises UserError if the next epoch might not finish before the deadline.
        """
        now = time.perf_counter()
        self.longest_epoch = max(self.longest_epoch, now - self.epoch_start)
        is_out_of_time = time.time() + EPOCH_TIME_SAFETY_FACTOR * self.longest_epoch + SHUTDOWN_TIME > self.deadline
        if is_out_of_time or now - self.last_checkpoint_time >= CHECKPOINT_INTERVAL:
            self._save_checkpoint()
            self.last_checkpoint_time = time.perf_counter()
        if is_out_of_time:
            record_state(STOPPED, epoch=epoch)
            limit = time.strftime("%H:%M:%S", time.localtime(self.deadline))
            raise UserError(
                f"{self.directory.path.name}: saved a checkpoint after epoch {epoch} and stopped: the Slurm time limit "
                f"is near ({limit}); the next attempt resumes from it"
            )
        self.epoch_start = time.perf_counter()

    def _save_checkpoint(self) -> None:
        entries = self.module.optimizer.state_dict()["state"].items()
        momentum = {str(index): entry.get("momentum_buffer") for index, entry in entries}
        state = TrainingState(
            network=_to_arrays(self.module.network.state_dict()),
            momentum=_to_arrays({index: buffer for index, buffer in momentum.items() if buffer is not None}),
            best=_to_arrays(self.best_state),
            update_norms=np.concatenate(self.update_norms),
            history=self.history,
            best_epoch=self.best_epoch,
            best_loss=self.best_loss,
            micro_batch=self.module.micro_batch,
        )
        write_checkpoint(self.directory.checkpoint_folder, state, self.run_key)

    def _restore(self, state: TrainingState) -> None:
        """Restore the network, the optimizer and the record from a checkpoint."""
        module, optimizer = self.module, self.module.optimizer
        module.network.load_state_dict(_to_tensors(state.network, module.device))
        content = optimizer.state_dict()
        parameters = list(module.network.parameters())
        # In the memory layout of their parameters: fused SGD reads both in memory order, whatever their strides.
        buffers = {
            int(index): torch.empty_like(parameters[int(index)]).copy_(torch.from_numpy(buffer))
            for index, buffer in state.momentum.items()
        }
        content["state"] = {index: {"momentum_buffer": buffer} for index, buffer in buffers.items()}
        optimizer.load_state_dict(content)
        self.best_state = _to_tensors(state.best, module.device)
        self.best_epoch, self.best_loss = state.best_epoch, state.best_loss
        self.history, self.update_norms = list(state.history), [state.update_norms]
        self.previous_weights = self._weights()

    def _weights(self) -> np.ndarray:
        """The current parameters, (p,), float32."""
        return self.module.parameter_vector().cpu().numpy()

    def _write_weights(self, name: str, state: dict[str, torch.Tensor] | None = None) -> None:
        """Write a state dict, by default that of the current weights; only the main process does."""
        if self.module.process_group.is_main_process:
            state = state or self.module.network.state_dict()
            write_weights(self.directory.weights_file(name), _to_arrays(state), self.parameter_names)


def _to_arrays(state: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {key: tensor.detach().cpu().contiguous().numpy() for key, tensor in state.items()}


def _to_tensors(arrays: dict[str, np.ndarray], device: torch.device) -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(array.copy()).to(device) for key, array in arrays.items()}
