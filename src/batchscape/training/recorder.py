"""The record of a run: history, update norms, weights and checkpoints; it also decides when the run ends."""

import logging
import math
import time
from bisect import bisect_right
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from batchscape.errors import UserError
from batchscape.io.run_directory import RunDirectory, is_noise_scale_evaluation
from batchscape.io.weights import Layers, distance_by_layer, write_weights
from batchscape.optim.state import optimizer_arrays, restore_optimizer, second_moments
from batchscape.runtime.states import EVALUATED, STOPPED, record_state
from batchscape.tasks.objective import Measurement
from batchscape.training.checkpoint import CHECKPOINT, TrainingState, write_checkpoint
from batchscape.training.lightning import pl
from batchscape.training.module import Interval, TrainingModule

# Seconds between two checkpoints at least: the most that a killed run loses, besides the segment that it was in.
CHECKPOINT_INTERVAL = 15.0
# Seconds that a run needs to stop: to write its checkpoint, and for its processes to end.
SHUTDOWN_TIME = 20.0
# Before a deadline, the next segment is assumed to take this many times as long as the longest one so far.
SEGMENT_TIME_SAFETY_FACTOR = 1.5

CONVERGED, COMPLETED, BUDGET_SPENT, DIVERGED = "converged", "completed", "budget_spent", "diverged"
STOPPED_EARLY = "stopped"

AfterEvaluation = Callable[[int, float], bool]
"""Called with the number of an evaluation, from 1, and the lowest validation loss so far; returns whether to stop."""

log = logging.getLogger(__name__)


class Recorder(pl.Callback):
    """Records a run at each evaluation, saves its checkpoints, and stops it early."""

    def __init__(
        self,
        directory: RunDirectory,
        module: TrainingModule,
        run_key: str,
        checkpoint: TrainingState | None = None,
        deadline: float | None = None,
        after_evaluation: AfterEvaluation | None = None,
        states: Collection[int | None] = (),
    ):
        """Record the run of `module` in `directory`, from the beginning or from a `checkpoint` on.

        `run_key` identifies the run in its checkpoints. `deadline` is that of `Execution`, `after_evaluation` that of
        `train`. `states` are the steps of the evaluations after which the complete state is saved, for branches.
        """
        self.directory = directory
        self.module = module
        self.run_key = run_key
        self.checkpoint = checkpoint
        self.deadline = math.inf if deadline is None else deadline
        self.after_evaluation = after_evaluation
        self.states = states
        self.training = module.spec.training
        self.status = COMPLETED if self.training.patience is None else BUDGET_SPENT
        self.best_evaluation: int | None = None
        self.test: Measurement | None = None
        self.average_test: Measurement | None = None
        self.average_validation: Measurement | None = None
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
        self.last_checkpoint_time = self.segment_start = time.perf_counter()
        self.longest_segment = 0.0
        self.module.after_segment = self._maybe_save_checkpoint

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        module, plan, step, evaluation = self.module, self.module.plan, self.module.step, len(self.history) + 1
        interval, training = module.interval, module.training_measurement()
        started, cpu_started = time.perf_counter(), time.process_time()
        validation = module.validate()
        if module.average is not None:
            with module.loaded(module.average.state_dict()):
                self.average_validation = module.validate()
        average = self.average_validation.columns("average_validation_") if self.average_validation else {}
        validation_seconds = time.perf_counter() - started
        validation_cpu_seconds = module.all_reduce_sum(time.process_time() - cpu_started)

        gradient_norm, noise_scale = math.nan, math.nan
        if is_noise_scale_evaluation(evaluation) and module.process_group.is_main_process:
            gradient_norm, noise_scale = module.noise_scale()
        weights = self._weights()
        distance = distance_by_layer(self.initial_weights, weights, self.layers)
        epoch_distance = distance_by_layer(self.previous_weights, weights, self.layers)
        self.previous_weights = weights
        self.update_norms.append(interval.update_norms)
        self.history.append(
            {
                "epoch": plan.epochs(step),
                "step": step,
                "examples": plan.examples(step),
                **training.columns("train_"),
                **validation.columns("validation_"),
                **average,
                "learning_rate": module.learning_rate(step),
                "clipped": interval.clipped / len(interval.update_norms),
                "train_seconds": interval.seconds,
                "train_cpu_seconds": interval.cpu_seconds,
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
        train_loss, validation_loss = training.loss, validation.loss
        metrics = "".join(f", validation {name} {value:.6g}" for name, value in validation.metrics.items())
        log.info(
            "step %d, epoch %.6g: training loss %.6g, validation loss %.6g%s, %.3f s",
            step, plan.epochs(step), train_loss, validation_loss, metrics, interval.seconds + validation_seconds,
        )  # fmt: skip
        if module.process_group.is_main_process:
            losses = {"train_loss": train_loss, "validation_loss": validation_loss}
            record_state(EVALUATED, epoch=plan.epochs(step), step=step, steps=plan.total, **losses)

        if step in plan.checkpoints:
            name = RunDirectory.checkpoint_name(plan.checkpoints[step])
            self._write_weights(name)
            self._write_second_moments(name)
        if not (math.isfinite(train_loss) and math.isfinite(validation_loss)):
            self.status = DIVERGED
            trainer.should_stop = True
            return
        patience = self.training.patience
        if validation_loss < self.best_loss:
            self.best_evaluation, self.best_loss = evaluation, validation_loss
            self.best_state = {name: tensor.clone() for name, tensor in module.network.state_dict().items()}
        elif patience is not None and self.best_evaluation and evaluation - self.best_evaluation >= patience:
            self.status = CONVERGED
            trainer.should_stop = True
            return
        # Before the checkpoint, so that a run that resumes has reported all evaluations before it.
        if step < plan.total and self.after_evaluation and self.after_evaluation(evaluation, self.best_loss):
            self.status = STOPPED_EARLY
            trainer.should_stop = True
            return
        module.interval = module.new_interval()
        if step in self.states and module.process_group.is_main_process:
            # One that an interrupted attempt has saved is the same.
            folder = self.directory.state_folder(step)
            if not (folder / CHECKPOINT).exists():
                self._save_checkpoint(folder)
        if step < plan.total:
            self._maybe_save_checkpoint()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        average = self.module.average.state_dict() if self.module.average else {}
        self.test, self.average_test = self._test(self.best_state), self._test(average)
        if not self.module.process_group.is_main_process:
            return
        if self.best_state:
            self._write_weights("best", self.best_state)
        self._write_weights("last")
        self._write_second_moments("last")
        if average:
            self._write_weights("average", average)
        self.directory.write_update_norms(np.concatenate(self.update_norms))
        self.directory.write_history(self.history)

    def _test(self, state: Mapping[str, torch.Tensor]) -> Measurement | None:
        """Return loss and metrics of a state on the test set; None without either. All processes take part."""
        if not state or self.module.data.test is None:
            return None
        with self.module.loaded(state):
            return self.module.test()

    def _maybe_save_checkpoint(self) -> None:
        """Save a checkpoint if the last one is old or the deadline near; only the main process does.

        Raises UserError if the next segment might not finish before the deadline.
        """
        if not self.module.process_group.is_main_process:
            return
        now = time.perf_counter()
        self.longest_segment = max(self.longest_segment, now - self.segment_start)
        time_left = self.deadline - time.time() - SHUTDOWN_TIME
        is_out_of_time = SEGMENT_TIME_SAFETY_FACTOR * self.longest_segment > time_left
        if is_out_of_time or now - self.last_checkpoint_time >= CHECKPOINT_INTERVAL:
            self._save_checkpoint(self.directory.checkpoint_folder)
            self.last_checkpoint_time = time.perf_counter()
        if is_out_of_time:
            step = self.module.step
            record_state(STOPPED, epoch=self.module.plan.epochs(step), step=step)
            limit = time.strftime("%H:%M:%S", time.localtime(self.deadline))
            raise UserError(
                f"{self.directory.path.name}: saved a checkpoint after step {step} and stopped: the Slurm time limit "
                f"is near ({limit}); the next attempt resumes from it"
            )
        self.segment_start = time.perf_counter()

    def _save_checkpoint(self, folder: Path) -> None:
        module, interval = self.module, self.module.interval
        optimizer, optimizer_values = optimizer_arrays(module.optimizer)
        state = TrainingState(
            step=module.step,
            network=_to_arrays(module.network.state_dict()),
            optimizer=optimizer,
            optimizer_values=optimizer_values,
            average=module.average.arrays() if module.average else {},
            best=_to_arrays(self.best_state),
            update_norms=np.concatenate([*self.update_norms, interval.update_norms]),
            previous_weights=self.previous_weights,
            interval_sums=interval.sums.numpy(),
            interval_values={name: getattr(interval, name) for name in ("weight", "clipped", "seconds", "cpu_seconds")},
            history=self.history,
            best_evaluation=self.best_evaluation,
            best_loss=self.best_loss,
            micro_batch=module.micro_batch,
        )
        write_checkpoint(folder, state, self.run_key)

    def _restore(self, state: TrainingState) -> None:
        """Restore the network, the optimizer and the record from a checkpoint."""
        module = self.module
        module.network.load_state_dict(_to_tensors(state.network, module.device))
        restore_optimizer(module.optimizer, state.optimizer, state.optimizer_values)
        if module.average:
            module.average.restore(state.average)
        self.best_state = _to_tensors(state.best, module.device)
        self.best_evaluation, self.best_loss = state.best_evaluation, state.best_loss
        self.history, self.previous_weights = list(state.history), state.previous_weights
        evaluations = module.plan.evaluations[: bisect_right(module.plan.evaluations, state.step)]
        # A branch may begin between two evaluations, and has no norms from before.
        evaluated = max(0, len(state.update_norms) - (state.step - max(evaluations, default=0)))
        self.update_norms = [state.update_norms[:evaluated]]
        module.step = state.step
        module.interval = Interval(
            sums=torch.from_numpy(state.interval_sums),
            update_norms=state.update_norms[evaluated:],
            **state.interval_values,
        )

    def _weights(self) -> np.ndarray:
        """The current parameters, (p,), float32."""
        return self.module.parameter_vector().cpu().numpy()

    def _write_weights(self, name: str, state: dict[str, torch.Tensor] | None = None) -> None:
        """Write a state dict, by default that of the current weights; only the main process does."""
        if self.module.process_group.is_main_process:
            state = state or self.module.network.state_dict()
            write_weights(self.directory.weights_file(name), _to_arrays(state), self.parameter_names)

    def _write_second_moments(self, name: str) -> None:
        """Write the second moments of Adam at the current weights; only the main process does."""
        parameters = list(self.module.network.parameters())
        moments = second_moments(self.module.optimizer, parameters)
        if moments is not None and self.module.process_group.is_main_process:
            arrays = _to_arrays(dict(zip(self.parameter_names, moments, strict=True)))
            write_weights(self.directory.second_moments_file(name), arrays, self.parameter_names)


def _to_arrays(state: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {key: tensor.detach().cpu().contiguous().numpy() for key, tensor in state.items()}


def _to_tensors(arrays: dict[str, np.ndarray], device: torch.device) -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(array.copy()).to(device) for key, array in arrays.items()}
