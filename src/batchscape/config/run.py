"""What makes a run: everything that decides its weights, and nothing else."""

from batchscape.config.base import LearningRate, PositiveInt, Section, Seed
from batchscape.config.model import ModelConfig
from batchscape.config.training import TrainingConfig


class RunSpec(Section):
    """One training: a batch size, a learning rate, a seed, a network and a way to train it."""

    batch_size: PositiveInt
    learning_rate: LearningRate
    seed: Seed
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
