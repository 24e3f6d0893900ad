"""What makes a run: everything that decides its weights, and nothing else."""

from typing import Annotated

from pydantic import Field

from batchscape.config.base import LearningRate, PositiveInt, Section, Seed
from batchscape.config.model import ModelConfig, VggConfig
from batchscape.config.training import TrainingConfig


class RunSpec(Section):
    """One training: a batch size, a learning rate and its warm-up, a seed, a network and a way to train it."""

    batch_size: PositiveInt
    learning_rate: LearningRate
    seed: Seed
    warmup_epochs: Annotated[int, Field(ge=0)] = 0
    model: ModelConfig = VggConfig()
    training: TrainingConfig = TrainingConfig()


class Tuned(Section):
    """What a search found: the part of a tuned run's specification that no study file says."""

    learning_rate: LearningRate
