"""The objective of a study: its network with its loss."""

from batchscape.config.model import CustomModelConfig, ModelConfig
from batchscape.config.task import TaskConfig
from batchscape.data.prepared import PreparedData
from batchscape.errors import UserError
from batchscape.models.build import build_network
from batchscape.tasks.lightning import LightningObjective
from batchscape.tasks.objective import Objective, SupervisedObjective
from batchscape.tasks.task import build_task, check_targets, count_outputs


def build_objective(model: ModelConfig, task_config: TaskConfig, data: PreparedData, seed: int) -> Objective:
    """Return a network with the initial weights of a seed, on the CPU, with its loss and metrics.

    Raises UserError if the network or the task do not fit the data.
    """
    if not task_config.has_own_loss:
        task = build_task(task_config, data.spec, data.train.arrays.get("targets"))
        return SupervisedObjective(build_network(model, data.spec, task.num_outputs, seed), task)
    check_targets(task_config, data.spec)
    if not isinstance(model, CustomModelConfig):
        raise UserError(f"task.loss: module is for a LightningModule, and model.name is {model.name}; name one there")
    if "weights" in data.train.arrays:
        raise UserError(
            "task.loss: module: the data has weights, and training_step cannot weight single examples; remove the "
            "weights, or write the loss as `task.loss: my_module:my_loss`"
        )
    outputs = count_outputs(data.spec)
    return LightningObjective(build_network(model, data.spec, outputs, seed, task_config.metrics))
