"""The specification of a run: everything that determines its weights, and nothing else."""

import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from batchscape.config.averaging import AveragingConfig
from batchscape.config.base import AsTuple, LearningRate, PositiveInt, Section, Seed
from batchscape.config.budget import Warmup
from batchscape.config.model import ModelConfig, VggConfig
from batchscape.config.optimizer import OptimizerConfig
from batchscape.config.scaling import BETAS, known_hyperparameters
from batchscape.config.schedule import ScheduleConfig
from batchscape.config.stages import Stages
from batchscape.config.task import ClassificationConfig, TaskConfig
from batchscape.config.training import TrainingConfig


class RunSpec(Section):
    """One training.

    Attributes:
        batch_size: Examples per optimizer step, summed over devices.
        learning_rate: The rate that the schedule scales.
        seed: Seed of the initial weights and of the order of examples.
        model: The network.
        task: What it is trained for.
        training: How it trains, and for how long.
        optimizer: What updates the weights.
        schedule: The learning rate of each step.
        averaging: The average of the weights that is evaluated beside them.
        stages: Changes of the batch size during the run, in their order.
    """

    batch_size: PositiveInt
    learning_rate: LearningRate
    seed: Seed
    model: ModelConfig = VggConfig()
    task: TaskConfig = ClassificationConfig()
    training: TrainingConfig = TrainingConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    averaging: AveragingConfig = AveragingConfig()
    stages: Annotated[Stages, AsTuple] = ()


class Tuned(Section):
    """The result of a search: the part of a tuned run's specification that is not in the study file.

    Attributes:
        learning_rate: The learning rate.
        momentum: The momentum; None if it was not searched, as for the others.
        weight_decay: The weight decay.
        beta2: β₂, the second of `betas`.
        warmup: Length of the warm-up, as a fraction of the budget.
    """

    learning_rate: LearningRate
    momentum: Annotated[float | None, Field(ge=0, lt=1)] = None
    weight_decay: Annotated[float | None, Field(gt=0)] = None
    beta2: Annotated[float | None, Field(ge=0, lt=1)] = None
    warmup: Annotated[float | None, Field(gt=0, le=1)] = None


def run_seed(name: str) -> int:
    """Return the seed of a run, by its name, such as `bs64-lr0.01-seed0`."""
    return int(name.rpartition("-seed")[2])


def with_hyperparameters(spec: Mapping[str, Any], values: Mapping[str, float | None]) -> RunSpec:
    """Return the specification of a run that trains with the result of a search.

    Args:
        spec: The specification as JSON; it may lack the learning rate.
        values: The hyperparameters by name, as in `Tuned`; those that are None stay as they are.

    Returns:
        The complete specification.
    """
    found = {name: value for name, value in values.items() if value is not None}
    run = RunSpec.model_validate_json(json.dumps({**spec, "learning_rate": found.pop("learning_rate")}))
    fraction = found.pop("warmup", None)
    schedule = (
        run.schedule if fraction is None else run.schedule.model_copy(update={"warmup": Warmup(fraction=fraction)})
    )
    arguments = dict(run.optimizer.arguments)
    if "beta2" in found:
        beta1 = known_hyperparameters(run.optimizer.name, arguments)[BETAS[0]]
        arguments["betas"] = [beta1, found.pop("beta2")]
    optimizer = run.optimizer.model_copy(update={"arguments": arguments | found})
    return run.model_copy(update={"optimizer": optimizer, "schedule": schedule})
