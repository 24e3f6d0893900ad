"""The specification of a run: everything that determines its weights, and nothing else."""

from typing import Annotated

from pydantic import Field

from batchscape.config.base import LearningRate, PositiveInt, Section, Seed
from batchscape.config.model import ModelConfig, VggConfig
from batchscape.config.task import ClassificationConfig, TaskConfig
from batchscape.config.training import TrainingConfig


class RunSpec(Section):
    """One training.

    Attributes:
        batch_size: Examples per optimizer step, summed over devices.
        learning_rate: Learning rate after the warm-up.
        seed: Seed of the initial weights and of the order of examples.
        warmup_epochs: Epochs of linear warm-up from 0.
        model: The network.
        task: What it is trained for.
        training: How it trains.
    """

    batch_size: PositiveInt
    learning_rate: LearningRate
    seed: Seed
    warmup_epochs: Annotated[int, Field(ge=0)] = 0
    model: ModelConfig = VggConfig()
    task: TaskConfig = ClassificationConfig()
    training: TrainingConfig = TrainingConfig()


class Tuned(Section):
    """The result of a search: the part of a tuned run's specification that is not in the study file."""

    learning_rate: LearningRate
