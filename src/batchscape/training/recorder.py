"""The record of a run: history, update norms and weights; it also says when the run ends and how."""

import logging
import math
import time
from typing import Any

import numpy as np
import torch

from batchscape.errors import UserError
from batchscape.io.run_directory import RunDirectory, is_noise_scale_epoch
from batchscape.io.weights import Layers, distance_by_layer, write_weights
from batchscape.training.checkpoint import TrainingState, write_checkpoint
from batchscape.training.lightning import pl
from batchscape.training.module import TrainingModule

# A state is written at most so often: the longest time that a killed run loses.
CHECKPOINT_INTERVAL = 15.0
# What a run needs to stop: its state written, and its processes ended.
SHUTDOWN_TIME = 20.0
# Before a time limit, an epoch is taken to last so many times the longest one so far.
EPOCH_TIME_SAFETY_FACTOR = 1.5

CONVERGED, DIVERGED, MAX_EPOCHS = "converged", "diverged", "max_epochs"

log = logging.getLogger(__name__)


class Recorder(pl.Callback):
    """Looks at the run once an epoch and writes it down in a run directory."""

    def __init__(
        self,
        directory: RunDirectory,
        patience: int,
        snapshots: tuple[int, ...],
        identity: str,
        state: TrainingState | None = None,
        ends: float | None = None,
    ):
        """`identity` says what a state belongs to; `state` is what the run goes on from, None at its beginning.

        `ends` is when the process will be ended, in seconds since 1970; None if that is not known.
        """
        self.directory = directory
        self.patience = patience
        self.snapshots = snapshots
        self.status = MAX_EPOCHS
        self.identity = identity
        self.state = state
        self.ends = math.inf if ends is None else ends
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
        self._write("init", module)
        if self.state:
            self._restore(module, self.state)
        self.told = self.epoch_began = time.perf_counter()
        self.longest_epoch = 0.0

    def on_train_epoch_end(self, trainer: pl.Trainer, module: TrainingModule) -> None:
        epoch, result = trainer.current_epoch + 1, module.result
        started, cpu_started = time.perf_counter(), time.process_time()
        validation_loss, validation_accuracy = module.validate()
        validation_seconds = time.perf_counter() - started
        validation_cpu_seconds = module.all_reduce_sum(time.process_time() - cpu_started)

        gradient_norm, noise_scale = math.nan, math.nan
        if is_noise_scale_epoch(epoch) and module.process_group.is_main_process:
            gradient_norm, noise_scale = module.gradient_noise()
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
            self._write(RunDirectory.checkpoint_name(epoch), module)
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
            return
        if module.process_group.is_main_process and epoch < trainer.max_epochs:
            self._maybe_save_checkpoint(epoch, module)

    def on_train_end(self, trainer: pl.Trainer, module: TrainingModule) -> None:
        if not module.process_group.is_main_process:
            return
        if self.best_state:
            self._write("best", module, self.best_state)
        self._write("last", module)
        self.directory.write_update_norms(np.concatenate(self.update_norms))
        self.directory.write_history(self.history)

    def _maybe_save_checkpoint(self, epoch: int, module: TrainingModule) -> None:
        """Keep the state now and then, and before a time limit. Raises UserError where the next epoch might not fit."""
        now = time.perf_counter()
        self.longest_epoch = max(self.longest_epoch, now - self.epoch_began)
        out_of_time = time.time() + EPOCH_TIME_SAFETY_FACTOR * self.longest_epoch + SHUTDOWN_TIME > self.ends
        if out_of_time or now - self.told >= CHECKPOINT_INTERVAL:
            self._save_checkpoint(module)
            self.told = time.perf_counter()
        if out_of_time:
            raise UserError(
                f"{self.directory.path.name}: stopped after epoch {epoch}, in time for the end of the Slurm job at "
                f"{time.strftime('%H:%M:%S', time.localtime(self.ends))}; the next attempt goes on from there"
            )
        self.epoch_began = time.perf_counter()

    def _save_checkpoint(self, module: TrainingModule) -> None:
        optimizer = module.optimizers(use_pl_optimizer=False).state_dict()["state"]
        momentum = {str(index): entry.get("momentum_buffer") for index, entry in optimizer.items()}
        state = TrainingState(
            network=_arrays(module.network.state_dict()),
            momentum=_arrays({index: buffer for index, buffer in momentum.items() if buffer is not None}),
            best=_arrays(self.best_state),
            update_norms=np.concatenate(self.update_norms),
            history=self.history,
            best_epoch=self.best_epoch,
            best_loss=self.best_loss,
            micro_batch=module.micro_batch,
        )
        write_checkpoint(self.directory.checkpoint_folder, state, self.identity)

    def _restore(self, module: TrainingModule, state: TrainingState) -> None:
        """Put the network, the optimiser and the record where the state has them."""
        module.network.load_state_dict(_tensors(state.network, module.device))
        optimizer = module.optimizers(use_pl_optimizer=False)
        content = optimizer.state_dict()
        parameters = list(module.network.parameters())
        # In the memory layout of their parameters: fused SGD goes through both as they lie, whatever their strides.
        buffers = {
            int(index): torch.empty_like(parameters[int(index)]).copy_(torch.from_numpy(buffer))
            for index, buffer in state.momentum.items()
        }
        content["state"] = {index: {"momentum_buffer": buffer} for index, buffer in buffers.items()}
        optimizer.load_state_dict(content)
        self.best_state = _tensors(state.best, module.device)
        self.best_epoch, self.best_loss = state.best_epoch, state.best_loss
        self.history, self.update_norms = list(state.history), [state.update_norms]
        self.before = module.parameter_vector().cpu().numpy()

    def _write(self, name: str, module: TrainingModule, state: dict[str, torch.Tensor] | None = None) -> None:
        """Write a state dict, by default that of the present weights; of several processes the first one does."""
        if module.process_group.is_main_process:
            state = state or module.network.state_dict()
            write_weights(self.directory.weights_file(name), _arrays(state), self.parameter_names)


def _arrays(state: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {key: tensor.detach().cpu().contiguous().numpy() for key, tensor in state.items()}


def _tensors(arrays: dict[str, np.ndarray], device: torch.device) -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(array.copy()).to(device) for key, array in arrays.items()}
