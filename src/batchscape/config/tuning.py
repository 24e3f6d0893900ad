"""Section `tuning`: the search for the best learning rate of each batch size."""

from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from batchscape.config.base import AsTuple, Distinct, LearningRate, PositiveInt, Section, Seed, cross_field_error
from batchscape.config.budget import Budget
from batchscape.config.model import ModelConfig, VggConfig
from batchscape.config.optimizer import OptimizerConfig
from batchscape.config.schedule import ScheduleConfig
from batchscape.config.task import ClassificationConfig, TaskConfig
from batchscape.config.training import TrainingConfig


def _ascending(values: tuple[float, float]) -> tuple[float, float]:
    low, high = values
    if not low < high:
        raise ValueError(f"must be the lowest and then the highest learning rate, got [{low:g}, {high:g}]")
    return values


DEFAULT_TRIAL_EPOCHS = 60


class TuningConfig(Section):
    """Search for the learning rate of each batch size (Optuna): first a logarithmic grid over the range, then a
    Gaussian process. The `tuned` arm trains at the rate that it finds."""

    enabled: bool = True
    """`false` disables the search and the `tuned` arm."""

    learning_rate_range: Annotated[
        tuple[LearningRate, LearningRate], Field(examples=[[0.003, 0.3]]), AsTuple, AfterValidator(_ascending)
    ] = (0.003, 0.3)
    """The lowest and the highest learning rate of the search."""

    trials: Annotated[int, Field(ge=2, examples=[12])] = 12
    """Number of learning rates to try for each batch size. A larger number resumes a finished search, a smaller one
    uses its first trials."""

    startup_trials: Annotated[int, Field(ge=2, examples=[6])] = 6
    """Number of trials on the logarithmic grid, which come first; the grid includes the ends of the range."""

    trial_budget: Annotated[Budget | None, Field(examples=[{"epochs": 60}])] = None
    """Length of a trial, in the unit of `training.budget` and at most as long: the result is the best rate for that
    budget. By default it is that of training, up to 60 epochs if that is in epochs."""

    seeds: Annotated[tuple[Seed, ...], Field(min_length=1, examples=[[100, 101]]), AsTuple, Distinct] = (100, 101)
    """Seeds of every trial; their mean best validation loss is minimized. With seeds of the grid, the `tuned` arm would
    be evaluated on the runs that selected its rate."""

    sampler_seed: Annotated[Seed, Field(examples=[0])] = 0
    """Seed of the search: the same seed gives the same trials."""

    @model_validator(mode="after")
    def _the_grid_fits_the_budget(self) -> Self:
        if self.startup_trials > self.trials:
            raise cross_field_error(
                "startup_trials", f"{self.startup_trials} is more than trials, {self.trials}; lower it"
            )
        return self


def trial_budget(tuning: TuningConfig, training: TrainingConfig) -> Budget:
    """Return the length of a trial: no longer than the runs that it is for."""
    budget = training.budget
    if tuning.trial_budget is None:
        return Budget(epochs=min(DEFAULT_TRIAL_EPOCHS, budget.epochs)) if budget.epochs is not None else budget
    return min(tuning.trial_budget, budget, key=lambda each: each.amount)


class SearchSpec(Section):
    """One search: everything that determines its trials, and their number."""

    batch_size: PositiveInt
    model: ModelConfig = VggConfig()
    task: TaskConfig = ClassificationConfig()
    training: TrainingConfig = TrainingConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    tuning: TuningConfig = TuningConfig()
