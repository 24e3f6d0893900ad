"""The specification of a run: everything that determines its weights, and nothing else."""

from typing import Annotated

from batchscape.config.averaging import AveragingConfig
from batchscape.config.base import AsTuple, LearningRate, PositiveInt, Section, Seed
from batchscape.config.model import ModelConfig, VggConfig
from batchscape.config.optimizer import OptimizerConfig
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
    """The result of a search: the part of a tuned run's specification that is not in the study file."""

    learning_rate: LearningRate
