"""The network of a `LightningModule`: it maps a batch to the loss of its `training_step`."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from batchscape.errors import UserError, is_out_of_memory
from batchscape.runtime.user_code import overridden_methods, summarize_error

# What Lightning adds to the name of a value that is logged in training.
TRAIN_PREFIXES = ("", "train_", "train/")

# Methods that change no weights, and those that read data, which the section `data` gives.
_UNUSED = (
    "validation_step",
    "test_step",
    "predict_step",
    "on_validation_start",
    "on_validation_end",
    "on_validation_epoch_start",
    "on_validation_epoch_end",
    "on_validation_batch_start",
    "on_validation_batch_end",
    "on_test_start",
    "on_test_end",
    "on_test_epoch_start",
    "on_test_epoch_end",
    "on_test_batch_start",
    "on_test_batch_end",
    "on_train_end",
    "on_fit_end",
    "on_save_checkpoint",
    "on_load_checkpoint",
    "configure_callbacks",
    "teardown",
)
_DATA = ("prepare_data", "train_dataloader", "val_dataloader", "test_dataloader", "predict_dataloader")


class StepNetwork(nn.Module):
    """A network whose output is the loss of a batch, and what `training_step` logs of it.

    It has the parameters, buffers and submodules of the LightningModule under their own names, so that saved weights
    can be loaded into either.

    Args:
        module: The LightningModule. Its class is replaced by a subclass that needs no Trainer.
        name: Its import path, for messages.
        metrics: Names of the logged values to return beside the loss.
    """

    module: Any

    def __init__(self, module: Any, name: str, metrics: tuple[str, ...]):
        self.__dict__["module"] = module  # not a submodule, whose name would begin the names of all parameters
        super().__init__()
        for registry in ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"):
            self.__dict__[registry] = getattr(module, registry)  # the same objects, in copies too
        self.name = name
        self.metrics = metrics
        cls = type(module)
        module.__class__ = type(cls.__name__, (_WithoutTrainer, cls), {"__module__": cls.__module__})
        module.__dict__["logged_values"] = {}
        parameters = inspect.signature(module.training_step).parameters
        self.takes_index = len(parameters) > 1
        if "dataloader_iter" in parameters:
            raise UserError(
                f"model.name: {name}: training_step takes dataloader_iter, and there is no data loader; take a batch"
            )

    @property
    def training(self) -> bool:
        """Whether the module is in training mode."""
        return self.__dict__["module"].training

    @training.setter
    def training(self, mode: bool) -> None:
        self.__dict__["module"].training = mode

    def train(self, mode: bool = True) -> "StepNetwork":
        """Set the mode, by the method of the module, which may do more."""
        self.module.train(mode)
        return self

    def forward(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """Return the mean loss of a batch and the logged values, (1 + m,), from its inputs and, last, its targets."""
        return self.step(inputs, 0)[0]

    def step(self, inputs: tuple[Tensor, ...], index: int) -> tuple[Tensor, tuple[str, ...]]:
        """Call `training_step`.

        Args:
            inputs: The inputs of a batch, one or several tensors, and its targets.
            index: The argument `batch_idx`.

        Returns:
            Loss and metrics, (1 + m,), and the names of all values that were logged.

        Raises:
            UserError: It returns no scalar loss, or a metric is not logged.
        """
        *parts, targets = inputs
        batch = parts[0] if len(parts) == 1 else tuple(parts), targets
        try:
            returned = self.module.training_step(batch, *((index,) if self.takes_index else ()))
            logged = dict(self.module.logged_values)
        finally:
            self.module.logged_values.clear()
        loss = self._loss(returned)
        metrics = [self._metric(logged, metric).to(loss) for metric in self.metrics]
        return torch.stack([loss, *metrics]), tuple(logged)

    def configure_optimizers(self) -> Any:
        """Return what the method of the module returns."""
        return self.module.configure_optimizers()

    def _loss(self, returned: Any) -> Tensor:
        loss = returned.get("loss") if isinstance(returned, Mapping) else returned
        if loss is None:
            raise UserError(
                f"model.name: {self.name}: training_step returns no loss; return it, or a dict with it as `loss`, in "
                "every step"
            )
        if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.is_floating_point():
            kind = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise UserError(
                f"model.name: {self.name}: training_step returns {kind}; it must return the mean loss as a scalar"
            )
        return loss.reshape(())

    def _metric(self, logged: Mapping[str, Any], metric: str) -> Tensor:
        for name in (f"{prefix}{metric}" for prefix in TRAIN_PREFIXES):
            if name in logged:
                value = logged[name]
                if isinstance(value, Tensor | int | float) and torch.as_tensor(value).numel() == 1:
                    return torch.as_tensor(value).detach().reshape(())
                raise UserError(
                    f"task.metrics: {metric}: {self.name} logs {type(value).__name__} as {name}; log the mean over the "
                    "examples of the batch as a scalar"
                )
        names = ", ".join(logged) or "nothing"
        raise UserError(
            f"task.metrics: {metric} is not logged by training_step of {self.name}, which logs {names}; log it there"
        )


class _WithoutTrainer:
    """Overrides what a LightningModule has from its Trainer, of which Lightning would else return a default."""

    logged_values: dict[str, Any]

    def log(self, name: str, value: Any, *_: Any, **__: Any) -> None:
        """Keep a value until the end of the step."""
        self.logged_values[name] = value

    def log_dict(self, dictionary: Mapping[str, Any], *_: Any, **__: Any) -> None:
        """Keep values until the end of the step."""
        self.logged_values.update(dictionary)

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return next(self.parameters()).device  # type: ignore[attr-defined]  # of the LightningModule

    @property
    def dtype(self) -> torch.dtype:
        """The data type of the parameters."""
        return next(self.parameters()).dtype  # type: ignore[attr-defined]

    @property
    def trainer(self) -> Any:
        """Raise UserError: there is none."""
        raise _needs_trainer("trainer")

    @property
    def current_epoch(self) -> int:
        """Raise UserError, where Lightning returns 0."""
        raise _needs_trainer("current_epoch")

    @property
    def global_step(self) -> int:
        """Raise UserError, where Lightning returns 0."""
        raise _needs_trainer("global_step")


def _needs_trainer(name: str) -> UserError:
    return UserError(
        f"model.name: the LightningModule reads self.{name}, and no Trainer of its own runs it; compute without it, "
        "and write a schedule of the learning rate in the section `schedule`"
    )


def step_inputs(inputs: Any, targets: Tensor) -> tuple[Tensor, ...]:
    """Return the inputs of a `StepNetwork`; numeric targets have the data type of numeric inputs."""
    parts = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    floats = [part.dtype for part in parts if part.is_floating_point()]
    return *parts, targets.to(floats[0]) if floats and targets.is_floating_point() else targets


def unused_methods(network: StepNetwork) -> list[str]:
    """Return the methods of a module that are not called, although a Trainer would call them."""
    overridden = overridden_methods(network.module, "LightningModule") or set()
    return [name for name in (*_UNUSED, *_DATA, "setup") if name in overridden]


def check_step(network: StepNetwork, inputs: tuple[Tensor, ...]) -> tuple[str, ...]:
    """Check `training_step` on a batch, in both modes.

    Args:
        network: The network, which is left in training mode.
        inputs: As `step_inputs` returns them, on the device of the network.

    Returns:
        The names of the values that it logs.

    Raises:
        UserError: It fails, returns no loss, or one that is random in evaluation mode, depends on `batch_idx`, or that
            no parameter can change.
    """
    name = network.name
    for training in (True, False):
        network.train(training)
        try:
            first, logged = network.step(inputs, 0)
        except UserError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            shapes = " and ".join(str(tuple(part.shape)) for part in inputs)
            raise UserError(
                f"model.name: {name}: training_step fails on a batch of shapes {shapes}, of which the last are the "
                f"targets: {summarize_error(error)}"
            )
        if not first.requires_grad:
            raise UserError(f"model.name: {name} has no trainable parameters that its loss depends on")
    with torch.no_grad():
        again, _ = network.step(inputs, 0)
        next_batch, _ = network.step(inputs, 1)
    network.train()
    if not torch.allclose(first, again, rtol=1e-4, atol=1e-6, equal_nan=True):
        raise UserError(
            f"model.name: {name}: training_step gives another loss for the same batch in evaluation mode; draw random "
            "numbers only `if self.training`"
        )
    if not torch.allclose(first, next_batch, rtol=1e-4, atol=1e-6, equal_nan=True):
        raise UserError(
            f"model.name: {name}: the loss depends on batch_idx, which has no meaning when a batch is split; ignore it"
        )
    return logged
