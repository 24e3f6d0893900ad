"""Section `tuning`: the search for the best hyperparameters of each batch size."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from batchscape.config.base import (
    AsTuple,
    Distinct,
    FromText,
    LearningRate,
    PositiveInt,
    Section,
    Seed,
    cross_field_error,
)
from batchscape.config.budget import Budget
from batchscape.config.model import ModelConfig, VggConfig
from batchscape.config.optimizer import OptimizerConfig
from batchscape.config.scaling import LEARNING_RATE
from batchscape.config.schedule import ScheduleConfig
from batchscape.config.task import ClassificationConfig, TaskConfig
from batchscape.config.training import TrainingConfig


def _ascending(values: tuple[float, float] | None) -> tuple[float, float] | None:
    if values is not None and not values[0] < values[1]:
        raise ValueError(f"must be the lowest and then the highest value, got [{values[0]:g}, {values[1]:g}]")
    return values


DEFAULT_TRIAL_EPOCHS = 60
# Without a budget, a search has so many trials if none is pruned, besides the finalists.
DEFAULT_TRIALS = 12

DecayRate = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False), FromText]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False), FromText]
Fraction = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False), FromText]
Ascending = AfterValidator(_ascending)


class HyperparametersConfig(Section):
    """The lowest and the highest value of each hyperparameter that is searched, all on logarithmic scales; those
    without a range have the values of the study. The optimizer must have them."""

    learning_rate: Annotated[tuple[LearningRate, LearningRate], Field(examples=[[0.003, 0.3]]), AsTuple, Ascending] = (
        0.003,
        0.3,
    )
    """The learning rate."""

    momentum: Annotated[tuple[DecayRate, DecayRate] | None, Field(examples=[[0.8, 0.99]]), AsTuple, Ascending] = None
    """The momentum; the scale is that of 1 − momentum."""

    weight_decay: Annotated[tuple[Positive, Positive] | None, Field(examples=[[0.001, 1]]), AsTuple, Ascending] = None
    """The weight decay."""

    beta2: Annotated[tuple[DecayRate, DecayRate] | None, Field(examples=[[0.9, 0.999]]), AsTuple, Ascending] = None
    """β₂; the scale is that of 1 − β₂, to which the half-life in steps is inversely proportional."""

    warmup: Annotated[tuple[Fraction, Fraction] | None, Field(examples=[[0.01, 0.3]]), AsTuple, Ascending] = None
    """Length of the warm-up as a fraction of the budget, in place of `schedule.warmup`."""

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """The ranges of the hyperparameters that are searched, by name; the learning rate is the first."""
        return {name: getattr(self, name) for name in type(self).model_fields if getattr(self, name) is not None}


class FinalistsConfig(Section):
    """The last stage of a search: the best settings of the trials train again, for the complete `training.budget` and
    with new seeds, before one is chosen."""

    settings: Annotated[int, Field(ge=0, examples=[3])] = 3
    """How many settings train again; 0 chooses from the trials."""

    seeds: Annotated[tuple[Seed, ...], Field(min_length=1, examples=[[200, 201, 202]]), AsTuple, Distinct] = (
        200,
        201,
        202,
    )
    """Seeds with which each of them trains, none of which is a seed of the grid or of the trials."""

    @property
    def count(self) -> int:
        """Number of complete trainings."""
        return self.settings * len(self.seeds)


class TuningConfig(Section):
    """Search for the learning rate, and other hyperparameters, of each batch size (Optuna): a logarithmic grid over the
    range of learning rates, then a Gaussian process, then complete trainings of the best settings. The `tuned` arm
    trains with what it finds."""

    enabled: bool = True
    """`false` disables the search and the `tuned` arm."""

    hyperparameters: Annotated[HyperparametersConfig, Field(examples=[{"learning_rate": [0.003, 0.3]}])] = (
        HyperparametersConfig()
    )
    """The ranges that are searched."""

    max_extension: Annotated[float, Field(ge=1, le=1e6, allow_inf_nan=False, examples=[10]), FromText] = 10.0
    """If the best value is at an end of its range, the search continues beyond it, in steps as wide as those of the
    grid, up to this factor beyond either end; 1: never."""

    budget: Annotated[float | None, Field(gt=0, allow_inf_nan=False, examples=[12]), FromText] = None
    """What the search of one batch size may cost, in complete trainings of `training.budget`: as many examples are
    trained at most. The finalists have settings × seeds of it, the trials the rest, and a trial that ends early costs
    only what it trained. By default it is enough for 12 trials. A larger budget resumes a finished search, a smaller
    one uses its first trials."""

    startup_trials: Annotated[int, Field(ge=2, examples=[6])] = 6
    """Number of trials on the logarithmic grid of learning rates, which come first; the grid includes the ends of the
    range. Other hyperparameters have the values of the study there, or the middle of their range."""

    trial_budget: Annotated[Budget | None, Field(examples=[{"epochs": 60}])] = None
    """Length of a trial, in the unit of `training.budget` and at most as long. By default it is that of training, up to
    60 epochs if that is in epochs."""

    seeds: Annotated[tuple[Seed, ...], Field(min_length=1, examples=[[100, 101]]), AsTuple, Distinct] = (100, 101)
    """Seeds of every trial. With seeds of the grid, the `tuned` arm would be evaluated on the runs that selected it."""

    quantile: Annotated[float | None, Field(ge=0.5, le=1, allow_inf_nan=False, examples=[0.9]), FromText] = 0.9
    """The quantile over the seeds of the best validation loss that is minimized, so that a setting at which single
    seeds fail is not the best; `null`: the mean."""

    margin: Annotated[float, Field(ge=1, le=100, allow_inf_nan=False, examples=[1.5]), FromText] = 1.5
    """A setting counts as no better than those of its trials at up to this many times its learning rate at which
    training fails, so that the best one has a distance from them; 1: none."""

    pruner: Literal["median", "none"] = "median"
    """`median`: a trial after those of the grid ends, without training its other seeds, if in the second half of the
    run with its first seed its lowest loss so far is above the median of those of the earlier trials at the same
    evaluation (Golovin et al. 2017)."""

    finalists: Annotated[FinalistsConfig, Field(examples=[{"settings": 3}])] = FinalistsConfig()
    """What trains again before a setting is chosen."""

    sampler_seed: Annotated[Seed, Field(examples=[0])] = 0
    """Seed of the search: the same seed gives the same trials."""

    @model_validator(mode="after")
    def _seeds_are_new(self) -> Self:
        repeated = sorted({*self.seeds} & {*self.finalists.seeds}) if self.finalists.settings else []
        if repeated:
            raise cross_field_error(
                "finalists.seeds", f"{repeated[0]} is in tuning.seeds too; use a seed that chose no finalist"
            )
        return self


def trial_budget(tuning: TuningConfig, training: TrainingConfig) -> Budget:
    """Return the length of a trial: no longer than the runs that it is for."""
    budget = training.budget
    if tuning.trial_budget is None:
        return Budget(epochs=min(DEFAULT_TRIAL_EPOCHS, budget.epochs)) if budget.epochs is not None else budget
    return min(tuning.trial_budget, budget, key=lambda each: each.amount)


def trial_cost(tuning: TuningConfig, training: TrainingConfig) -> float:
    """Return the cost of a trial with all its seeds, in complete trainings."""
    return len(tuning.seeds) * trial_budget(tuning, training).amount / training.budget.amount


def search_budget(tuning: TuningConfig, training: TrainingConfig) -> float:
    """Return the budget of a search, in complete trainings."""
    if tuning.budget is not None:
        return tuning.budget
    trials = max(DEFAULT_TRIALS, tuning.startup_trials)
    return round(tuning.finalists.count + trials * trial_cost(tuning, training), 6)


def affordable_trials(tuning: TuningConfig, training: TrainingConfig) -> float:
    """Return the number of trials of full length that the budget pays besides the finalists; it may be a fraction."""
    rest = search_budget(tuning, training) - tuning.finalists.count
    return round(rest / trial_cost(tuning, training), 6)


def describe_minimal_budget(tuning: TuningConfig, training: TrainingConfig) -> str | None:
    """Return why the budget is too small for the grid and the finalists, and how to fix it; None if it is not."""
    if affordable_trials(tuning, training) >= tuning.startup_trials:
        return None
    needed = tuning.finalists.count + tuning.startup_trials * trial_cost(tuning, training)
    return (
        f"{search_budget(tuning, training):g} is less than the {needed:.6g} trainings of the finalists and the grid; "
        "increase it, or lower finalists.settings, startup_trials or trial_budget"
    )


class SearchSpec(Section):
    """One search: everything that determines its trials and its finalists, and the budget.

    Attributes:
        batch_size: The batch size.
        model: The network.
        task: What it is trained for.
        training: How the finalists train; trials have a budget of their own.
        optimizer: What updates the weights, with the values of the hyperparameters that are not searched.
        schedule: The learning rate of each step.
        tuning: The section.
    """

    batch_size: PositiveInt
    model: ModelConfig = VggConfig()
    task: TaskConfig = ClassificationConfig()
    training: TrainingConfig = TrainingConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    tuning: TuningConfig = TuningConfig()


def names_of(values: Mapping[str, Any]) -> list[str]:
    """Return the hyperparameters among the keys of a mapping other than the learning rate, in their order."""
    return [name for name in HyperparametersConfig.model_fields if name in values and name != LEARNING_RATE]
