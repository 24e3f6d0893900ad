"""A `LightningModule` by import path, which brings its own loss."""

from typing import Any

import torch

from batchscape.config.model import CustomModelConfig
from batchscape.data.spec import DataSpec
from batchscape.errors import UserError
from batchscape.models.build import apply_network
from batchscape.models.custom import adapt_to_input, construct, has_lazy_layers
from batchscape.models.inputs import random_inputs, random_targets, zero_inputs
from batchscape.models.step_network import StepNetwork, step_inputs
from batchscape.runtime.user_code import overridden_methods

# Methods that the Trainer calls around a step: without it they would silently not run.
_REFUSED = (
    "on_fit_start",
    "on_train_start",
    "on_train_epoch_start",
    "on_train_epoch_end",
    "on_train_batch_start",
    "on_train_batch_end",
    "on_before_batch_transfer",
    "transfer_batch_to_device",
    "on_after_batch_transfer",
    "on_before_zero_grad",
    "on_before_backward",
    "backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "optimizer_step",
    "optimizer_zero_grad",
    "configure_gradient_clipping",
    "clip_gradients",
    "lr_scheduler_step",
    "configure_model",
    "configure_sharded_model",
    "on_validation_model_eval",
    "on_validation_model_train",
    "on_validation_model_zero_grad",
)


def build(config: CustomModelConfig, spec: DataSpec, outputs: int, metrics: tuple[str, ...]) -> StepNetwork:
    """Return the network of a LightningModule. Raises UserError if it cannot be trained by its `training_step`."""
    module = construct(config, spec, outputs)
    name = config.name
    overridden = overridden_methods(module, "LightningModule") or set()
    if "training_step" not in overridden:
        raise UserError(
            f"task.loss: module: {name} returns {type(module).__name__}, which is no LightningModule with a "
            "training_step; name one, or another loss"
        )
    _check_methods(module, overridden, name)
    network = StepNetwork(module, name, metrics)
    if has_lazy_layers(network):
        with torch.no_grad():
            apply_network(network.eval(), step_inputs(zero_inputs(spec, 1), random_targets(spec, 1)), name)
        network.train()
    adapt_to_input(network, spec, step_inputs(random_inputs(spec, 2), random_targets(spec, 2)), name)
    return network


def _check_methods(module: Any, overridden: set[str], name: str) -> None:
    if not module.automatic_optimization:
        raise UserError(
            f"model.name: {name} sets automatic_optimization = False, and Batchscape takes the steps itself; let "
            "training_step return one loss for one optimizer"
        )
    refused = [method for method in _REFUSED if method in overridden]
    if "setup" in overridden and "train_dataloader" not in overridden:  # else it is for the data
        refused.append("setup")
    if refused:
        raise UserError(
            f"model.name: {name} defines {' and '.join(refused)}, which only a Trainer calls; move what is needed into "
            "__init__ or training_step, and remove the rest"
        )
