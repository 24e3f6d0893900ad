"""A checked study file, and its runs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from batchscape.config.analysis import AnalysisConfig
from batchscape.config.arms import DEFAULT_ARMS, ArmConfig, Arms, Base, Changes
from batchscape.config.averaging import AveragingConfig
from batchscape.config.base import Section, cross_field_error, shortest_decimal
from batchscape.config.branching import BranchingConfig
from batchscape.config.budget import Warmup
from batchscape.config.comparison import ComparisonConfig
from batchscape.config.confirmation import ConfirmationConfig, confirmation_seeds
from batchscape.config.curvature import CurvatureConfig
from batchscape.config.data.images import DigitsConfig
from batchscape.config.data.section import held_out_count
from batchscape.config.data.sources import DEFAULT_TASKS, DataConfig
from batchscape.config.device_timing import DeviceTimingConfig
from batchscape.config.figures import FiguresConfig
from batchscape.config.gradient_alignment import GradientAlignmentConfig
from batchscape.config.grid import GridConfig
from batchscape.config.interpolation import InterpolationConfig
from batchscape.config.landscape import LandscapeConfig
from batchscape.config.loading import (
    format_validation_errors,
    merge_mappings,
    printable,
    read_yaml,
    restore_text,
)
from batchscape.config.model import ModelConfig, VggConfig
from batchscape.config.optimizer import OptimizerConfig
from batchscape.config.resources import ResourcesConfig
from batchscape.config.scaling import BETAS, HYPERPARAMETERS, explain_unknown, known_hyperparameters
from batchscape.config.schedule import ScheduleConfig
from batchscape.config.settings import BATCH_WARMUP, CHANGE_PREFIXES, WARMUP_SUFFIXES
from batchscape.config.sharpness import SharpnessConfig
from batchscape.config.spectral_density import SpectralDensityConfig
from batchscape.config.stages import GrowthConfig, Stages, fraction_of, grow
from batchscape.config.task import ClassificationConfig, TaskConfig
from batchscape.config.tracking import Trackers
from batchscape.config.training import TrainingConfig
from batchscape.config.trajectory import TrajectoryConfig
from batchscape.config.tuning import TuningConfig, describe_minimal_budget
from batchscape.errors import UserError


@dataclass(frozen=True)
class Run:
    """One training, named by its settings, not by the arms that need it."""

    batch_size: int
    learning_rate: float | None
    """None: the rate that the search finds for the batch size."""
    seed: int
    changes: Changes = ()
    """The hyperparameters that it does not share with the study."""
    warmup: Warmup | None = None
    """None: that of the study."""
    stages: Stages = ()
    """Changes of the batch size."""
    growth: GrowthConfig | None = None
    """Changes of the batch size in place of the decay of the study."""
    batch_warmup: bool = False
    """Whether the batch size follows the measured critical one."""

    def __lt__(self, other: Self) -> bool:
        return self._place < other._place

    @property
    def _place(self) -> tuple[Any, ...]:
        rate = math.inf if self.learning_rate is None else self.learning_rate
        warmup = (self.warmup.unit, self.warmup.amount) if self.warmup else ()
        return self.batch_size, rate, self.seed, self.changes, warmup, self._stages

    @property
    def setting(self) -> str:
        """What runs that differ only in their seed share."""
        rate = "tuned" if self.learning_rate is None else shortest_decimal(self.learning_rate)
        changes = "".join(f"-{CHANGE_PREFIXES[name]}{_short(value)}" for name, value in self.changes)
        return f"bs{self.batch_size}-lr{rate}{changes}{self._warmup}{self._stages}"

    @property
    def _warmup(self) -> str:
        return f"-warmup{_short_length(self.warmup)}" if self.warmup else ""

    @property
    def _stages(self) -> str:
        """Such as `-x4at50pct` for four times the batch size from half the budget on, or `-grow2max512`."""
        if self.batch_warmup:
            return BATCH_WARMUP
        if self.growth:
            limit = f"max{self.growth.max_batch_size}" if self.growth.max_batch_size else ""
            return f"-grow{self.growth.factor}{limit}{'sqrt' if self.growth.rule == 'sqrt' else ''}"
        return "".join(
            f"-x{stage.batch_size_factor}at{_short_length(stage.start)}"
            + (f"lr{_short(stage.learning_rate_factor)}" if stage.learning_rate_factor != 1 else "")
            for stage in self.stages
        )

    @property
    def name(self) -> str:
        return f"{self.setting}-seed{self.seed}"


def _short_length(length: Warmup) -> str:
    """Return a length such as `5` epochs, `500steps` or `10pct` of the budget."""
    percent = round(100 * length.amount, 10) if length.unit == "fraction" else length.amount
    return f"{shortest_decimal(percent)}{WARMUP_SUFFIXES[length.unit]}"


def _short(value: float) -> str:
    """Return the shortest text that parses to the same float, without `+`."""
    text = repr(float(value)).removesuffix(".0")
    return text.replace("e+", "e")


def _folder_name(name: str) -> str:
    if not (name.isascii() and name.replace("-", "").replace("_", "").isalnum() and len(name) <= 100):
        raise ValueError(f"must be at most 100 letters, digits, `-` and `_`, got {name!r}; write `name: my-study`")
    return name


class StudyConfig(Section):
    """A study file, checked."""

    name: Annotated[str, Field(examples=["my-study"]), AfterValidator(_folder_name)]
    """Name of the study; all its results are in `results/<name>/`."""

    tracking: Annotated[Trackers, Field(examples=[["tensorboard"]])] = ()
    """Programs that show the curves of the runs while they train, see [tracking.md](tracking.md). An edit trains
    nothing: finished runs are added."""

    data: DataConfig = DigitsConfig()
    task: TaskConfig = ClassificationConfig()
    grid: GridConfig = GridConfig()
    model: ModelConfig = VggConfig()
    training: TrainingConfig = TrainingConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    averaging: AveragingConfig = AveragingConfig()
    comparison: ComparisonConfig = ComparisonConfig()
    arms: Arms = DEFAULT_ARMS
    tuning: TuningConfig = TuningConfig()
    confirmation: ConfirmationConfig = ConfirmationConfig()
    analysis: AnalysisConfig = AnalysisConfig()
    sharpness: SharpnessConfig = SharpnessConfig()
    interpolation: InterpolationConfig = InterpolationConfig()
    landscape: LandscapeConfig = LandscapeConfig()
    trajectory: TrajectoryConfig = TrajectoryConfig()
    gradient_alignment: GradientAlignmentConfig = GradientAlignmentConfig()
    curvature: CurvatureConfig = CurvatureConfig()
    spectral_density: SpectralDensityConfig = SpectralDensityConfig()
    branching: BranchingConfig = BranchingConfig()
    device_timing: DeviceTimingConfig = DeviceTimingConfig()
    figures: FiguresConfig = FiguresConfig()
    resources: ResourcesConfig = ResourcesConfig()

    @classmethod
    def from_mapping(
        cls,
        mapping: Mapping[str, Any],
        source: str,
        overrides: Mapping[str, Any] | None = None,
        texts: Mapping[str, Any] | None = None,
    ) -> Self:
        """Check a mapping; `source` names it in the messages. Raises UserError, one line for each mistake.

        `overrides` is a nested mapping that replaces single keys (the command line's `--config`), and `texts` the same
        with all values as text: `007` is a number, but not where a name is wanted.
        """
        if overrides:
            mapping, source = merge_mappings(mapping, overrides), f"{source} with --config"
        try:
            return cls.model_validate(mapping)
        except ValidationError as error:
            if texts and (again := restore_text(mapping, texts, error, cls)) != mapping:
                return cls.from_mapping(again, source)
            raise UserError("\n".join(format_validation_errors(error, cls, source))) from None

    @classmethod
    def from_file(
        cls, path: Path, overrides: Mapping[str, Any] | None = None, texts: Mapping[str, Any] | None = None
    ) -> Self:
        """Read and check one study file; keys that it leaves out have their defaults.

        `overrides` and `texts` are those of `from_mapping`.
        """
        return cls.from_mapping(read_yaml(path), printable(path), overrides, texts)

    @model_validator(mode="before")
    @classmethod
    def _task_of_the_data(cls, values: Any) -> Any:
        """Fill in the task that the data source has by default."""
        data, task = (values.get(key) if isinstance(values, Mapping) else None for key in ("data", "task"))
        default = DEFAULT_TASKS.get(str(data.get("source"))) if isinstance(data, Mapping) else None
        if default and (task is None or (isinstance(task, Mapping) and "name" not in task)):
            return {**values, "task": {"name": default, **(task or {})}}
        return values

    @model_validator(mode="after")
    def _own_loss_and_optimizer_are_of_a_custom_network(self) -> Self:
        for key, is_own in (("task.loss", self.task.has_own_loss), ("optimizer.name", self.optimizer.is_own)):
            if is_own and ":" not in self.model.name:
                raise cross_field_error(
                    key,
                    f"`module` is for a LightningModule, and model.name is {self.model.name}; write "
                    "`model: {name: my_module:MyLightningModule}`, or another name here",
                )
        return self

    @property
    def names_optimizer(self) -> bool:
        """Whether the study file names the optimizer."""
        return "name" in self.optimizer.model_fields_set

    @model_validator(mode="after")
    def _compared_batches_are_in_the_grid(self) -> Self:
        for key in ("small_batch_size", "large_batch_size"):
            value = getattr(self.comparison, key)
            if value is not None and value not in self.grid.batch_sizes:
                known = ", ".join(map(str, self.grid.batch_sizes))
                raise cross_field_error(
                    f"comparison.{key}", f"{value} is not in grid.batch_sizes; use one of {known} or add it there"
                )
        if self.small_batch_size >= self.large_batch_size and len(self.grid.batch_sizes) > 1:
            key = "large_batch_size" if self.comparison.small_batch_size is None else "small_batch_size"
            raise cross_field_error(
                f"comparison.{key}",
                f"the small batch, {self.small_batch_size}, must be smaller than the large one, "
                f"{self.large_batch_size}; write other ones or leave both out",
            )
        return self

    @model_validator(mode="after")
    def _targets_can_be_reached(self) -> Self:
        known = {metric.name: metric for metric in self.task.reported_metrics(self.data.token_unit)}
        for index, target in enumerate(self.comparison.targets or ()):
            ((name, value),) = target.items()
            key = f"comparison.targets[{index}]"
            if name == "loss":
                # Only a loss of the user's own can be negative.
                if value <= 0 and ":" not in self.task.loss and not self.task.has_own_loss:
                    raise cross_field_error(
                        key, f"loss must be above 0, as the losses of {self.task.name} are, got {value:g}"
                    )
                continue
            metric = known.get(name)
            if metric is None:
                names = ", ".join(["loss", *known])
                raise cross_field_error(key, f"{printable(name)} is not measured by this task; use one of {names}")
            if metric.optimum is None:
                continue
            if metric.higher_is_better and value > metric.optimum:
                raise cross_field_error(key, f"{name} must be at most {metric.optimum:g}, its optimum, got {value:g}")
            if not metric.higher_is_better and value <= metric.optimum:
                raise cross_field_error(key, f"{name} must be above {metric.optimum:g}, its optimum, got {value:g}")
        return self

    @property
    def targets(self) -> list[dict[str, Any]]:
        """The targets of `comparison.targets`: name, value, and whether higher values are better."""
        higher = {m.name for m in self.task.reported_metrics(self.data.token_unit) if m.higher_is_better}
        return [
            {"name": name, "value": value, "higher_is_better": name in higher}
            for target in self.comparison.targets or ()
            for name, value in target.items()
        ]

    @property
    def _enabled_arms(self) -> dict[str, ArmConfig]:
        return {name: arm for name, arm in self.arms.items() if arm.enabled}

    @model_validator(mode="after")
    def _warmups_fit_the_budget(self) -> Self:
        limit = self.training.budget.epochs
        warmups = {
            "schedule": self.schedule.warmup,
            **{f"arms.{name}": arm.warmup for name, arm in self._enabled_arms.items()},
        }
        for key, warmup in warmups.items():
            epochs = warmup.epochs if warmup else None
            if limit is not None and epochs is not None and epochs > limit:
                raise cross_field_error(
                    f"{key}.warmup", f"{warmup} is more than training.budget, {self.training.budget}; lower it"
                )
        return self

    @model_validator(mode="after")
    def _stages_begin_within_the_budget(self) -> Self:
        budget = self.training.budget
        for name, arm in self._enabled_arms.items():
            before = 0.0
            for index, stage in enumerate(arm.stages or ()):
                start, key = fraction_of(stage.start, budget), f"arms.{name}.stages[{index}].start"
                if start >= 1:
                    raise cross_field_error(
                        key, f"{stage.start} is not within training.budget, {budget}; lower it, or remove the stage"
                    )
                if start <= before:
                    raise cross_field_error(
                        key, f"{stage.start} is not after the stage before it; list stages in their order"
                    )
                before = before if math.isnan(start) else start
        return self

    @model_validator(mode="after")
    def _arms_fit_the_grid(self) -> Self:
        for name, arm in self._enabled_arms.items():
            foreign = [size for size in arm.batch_sizes if size not in self.grid.batch_sizes]
            if foreign:
                raise cross_field_error(
                    f"arms.{name}.{'values' if arm.values else 'learning_rates'}",
                    f"batch size {foreign[0]} is not in grid.batch_sizes; add it there",
                )
            for batch_size in self.grid.batch_sizes:
                try:
                    arm.at(batch_size, self._base)
                except PydanticCustomError as error:
                    context = error.context or {}
                    key = f"arms.{name}.{context['key']}".removesuffix(".")
                    raise cross_field_error(key, context["message"])
        return self

    @model_validator(mode="after")
    def _trials_have_the_unit_of_the_runs(self) -> Self:
        trial, budget = self.tuning.trial_budget, self.training.budget
        if self.tuning.enabled and trial is not None and trial.unit != budget.unit:
            raise cross_field_error(
                "tuning.trial_budget", f"is in {trial.unit}, and training.budget in {budget.unit}; use the same unit"
            )
        return self

    @model_validator(mode="after")
    def _search_fits_the_study(self) -> Self:
        tuning = self.tuning
        if not tuning.enabled:
            return self
        for name in tuning.hyperparameters.ranges:
            if name in HYPERPARAMETERS and name not in self._base.hyperparameters:
                problem, fix = explain_unknown(self.optimizer.name, name)
                raise cross_field_error(f"tuning.hyperparameters.{name}", f"{problem}; {fix}")
        stages = {"seeds": tuning.seeds, "finalists.seeds": tuning.finalists.seeds if tuning.finalists.settings else ()}
        for key, seeds in stages.items():
            if repeated := sorted({*seeds} & {*self.grid.seeds}):
                raise cross_field_error(
                    f"tuning.{key}",
                    f"{repeated[0]} is in grid.seeds too, so that the `tuned` arm would be evaluated on a seed that "
                    "selected it; use another one",
                )
        if too_small := describe_minimal_budget(tuning, self.training):
            raise cross_field_error("tuning.budget", too_small)
        return self

    @model_validator(mode="after")
    def _growth_has_a_decay(self) -> Self:
        for name, arm in self._enabled_arms.items():
            warmup, budget = arm.warmup or self.schedule.warmup, self.training.budget
            if arm.growth and self.schedule.decay == "constant":
                raise cross_field_error(
                    f"arms.{name}.growth", "needs a decay that it replaces; set schedule.decay, such as `cosine`"
                )
            if arm.growth and warmup and math.isnan(fraction_of(warmup, budget)):
                raise cross_field_error(
                    f"arms.{name}.growth",
                    f"begins after the warm-up, which is in {warmup.unit}, and training.budget in {budget.unit}; give "
                    "the warm-up in the same unit, or as a fraction",
                )
        return self

    @model_validator(mode="after")
    def _runs_fit_the_data(self) -> Self:
        """Check what each run would check, if the size of the source is known in advance."""
        size = self.data.known_size
        if size.images is not None:
            training = self._num_training_examples
            large = [batch_size for batch_size in self.grid.batch_sizes if batch_size > training]
            if large:
                raise cross_field_error(
                    "grid.batch_sizes",
                    f"{large[0]} is more than the {training} training {self.data.example_noun}; remove it",
                )
            for name in self.arms:
                if (largest := max(map(self.max_batch_size, self.runs_by_arm.get(name, ())), default=0)) > training:
                    raise cross_field_error(
                        f"arms.{name}",
                        f"has stages with a batch size of {largest}, which is more than the {training} training "
                        f"{self.data.example_noun}; lower its factors, or set growth.max_batch_size",
                    )
        num_downsamplings = self.model.num_downsamplings
        if size.side is not None and 2**num_downsamplings > size.side:
            channels = getattr(self.model, "channels", ())  # all networks that downsample have them
            raise cross_field_error(
                "model.channels",
                f"the network halves the images {num_downsamplings} times, but they have {size.side} pixels on their "
                f"shorter side; give at most {len(channels) - num_downsamplings + size.side.bit_length() - 1}",
            )
        return self

    @property
    def _num_training_examples(self) -> int:
        """The number of training examples, if the size of the source is known in advance."""
        count = self.data.known_size.images or 0
        held_out = (held_out_count(count, part) for part in (self.data.validation_fraction, self.data.test_fraction))
        return count - sum(held_out)

    @model_validator(mode="after")
    def _batches_can_be_shared(self) -> Self:
        devices, smallest = self.resources.devices * self.resources.nodes, min(self.grid.batch_sizes)
        if devices > smallest:
            raise cross_field_error(
                "resources.devices" if self.resources.nodes == 1 else "resources.nodes",
                f"{devices} devices cannot share a batch of {smallest}; remove it from grid.batch_sizes or lower this",
            )
        return self

    @model_validator(mode="after")
    def _analyzed_runs_are_in_the_study(self) -> Self:
        known = self.settings
        used_settings = {
            "interpolation.pairs": [name for pair in self.interpolation.pairs or () for name in pair],
            "landscape.settings": self.landscape.settings or (),
            "trajectory.settings": self.trajectory.settings or (),
            "curvature.settings": self.curvature.settings or (),
            "spectral_density.settings": self.spectral_density.settings or (),
            "branching.settings": self.branching.settings or (),
        }
        for key, names in used_settings.items():
            for name in names:
                if name not in known:
                    raise cross_field_error(
                        key,
                        f"{name!r} is not a setting of this study; settings are such as {known[0]}",
                    )
        for key in ("landscape", "trajectory", "branching"):
            for seed in getattr(self, key).seeds or ():
                if seed not in self.grid.seeds:
                    raise cross_field_error(f"{key}.seeds", f"{seed} is not in grid.seeds; add it there")
        return self

    @model_validator(mode="after")
    def _runs_can_be_branched(self) -> Self:
        if not self.branching.enabled:
            return self
        if self.schedule.decay != "constant":
            raise cross_field_error(
                "branching.enabled",
                f"branches of another length would have another decay of the learning rate than {self.schedule.decay}; "
                "set schedule.decay: constant, or disable this",
            )
        budget = self.training.budget
        for index, point in enumerate(self.branching.points):
            if point.unit == budget.unit and point.amount >= budget.amount:
                raise cross_field_error(
                    f"branching.points[{index}]", f"{point} is not within training.budget, {budget}; lower or remove it"
                )
        runs = [run for run in self.runs.values() if run.setting in self.branched_settings]
        for run in runs:
            if run.stages or run.growth or run.batch_warmup:
                raise cross_field_error("branching.settings", f"{run.setting} has stages of its own; use another one")
        if self.branching.batch_warmup and budget.unit == "steps":
            raise cross_field_error(
                "branching.batch_warmup",
                f"saves no steps if every run takes {budget}; give training.budget in epochs or examples, or disable "
                "this",
            )
        largest = max(run.batch_size for run in runs) * max(self.branching.factors)
        if self.data.known_size.images is not None and largest > (count := self._num_training_examples):
            raise cross_field_error(
                "branching.factors",
                f"a branch has a batch size of {largest}, which is more than the {count} training "
                f"{self.data.example_noun}; remove {max(self.branching.factors)}",
            )
        return self

    @model_validator(mode="after")
    def _analyzed_weights_are_saved(self) -> Self:
        saved_epochs = self.training.checkpoints
        used_checkpoints = {
            "sharpness.checkpoints": self.sharpness.checkpoints,
            "interpolation.checkpoint": (self.interpolation.checkpoint,),
            "landscape.checkpoint": (self.landscape.checkpoint,),
            "gradient_alignment.checkpoints": self.gradient_alignment.checkpoints,
            "spectral_density.checkpoints": self.spectral_density.checkpoints,
        }
        for key, checkpoints in used_checkpoints.items():
            for epoch in checkpoints:
                if isinstance(epoch, int) and epoch not in saved_epochs:
                    raise cross_field_error(
                        key, f"the weights after epoch {epoch} are not saved; add it to training.checkpoints"
                    )
            if "average" in checkpoints and self.averaging.half_life is None:
                raise cross_field_error(key, "there is no average of the weights; set averaging.half_life")
        if self.trajectory.enabled and not saved_epochs:
            raise cross_field_error(
                "trajectory.enabled",
                "trajectory needs intermediate checkpoints; list epochs in training.checkpoints, such as "
                "[1, 3, 10, 30, 100]",
            )
        return self

    @property
    def branched_settings(self) -> tuple[str, ...]:
        """The settings of the runs to branch from."""
        fixed_rate = self.comparison.fixed_learning_rate
        return self.branching.settings or (Run(self.small_batch_size, fixed_rate, 0).setting,)

    @property
    def small_batch_size(self) -> int:
        return self.comparison.small_batch_size or min(self.grid.batch_sizes)

    @property
    def large_batch_size(self) -> int:
        return self.comparison.large_batch_size or max(self.grid.batch_sizes)

    @property
    def _base(self) -> Base:
        return Base(
            self.comparison.fixed_learning_rate,
            self.small_batch_size,
            self.optimizer.name,
            known_hyperparameters(self.optimizer.name, self.optimizer.arguments),
        )

    def recipe(self, run: Run) -> tuple[OptimizerConfig, ScheduleConfig, Stages]:
        """Return the optimizer, the schedule and the stages of a run: those of the study with the changes of the run.

        Args:
            run: A run of the study.

        Returns:
            The two sections, and the stages, none if they are measured; the optimizer has the hyperparameters of the
            run as arguments.
        """
        changes = dict(run.changes)
        arguments: dict[str, Any] = dict(self.optimizer.arguments)
        arguments |= {name: value for name, value in changes.items() if name not in BETAS}
        if changes.keys() & set(BETAS):
            values = {**self._base.hyperparameters, **changes}
            arguments["betas"] = [values[name] for name in BETAS]
        optimizer = self.optimizer.model_copy(update={"arguments": arguments}) if run.changes else self.optimizer
        schedule = self.schedule.model_copy(update={"warmup": run.warmup}) if run.warmup else self.schedule
        if run.growth is None:
            return optimizer, schedule, run.stages
        stages = grow(run.growth, schedule, run.batch_size, self.training.budget)
        return optimizer, schedule.model_copy(update={"decay": "constant"}), stages

    def max_batch_size(self, run: Run) -> int:
        """Return the largest batch size of a run, or the largest that it may have if that is measured."""
        if run.batch_warmup:
            return run.batch_size * max(self.branching.factors)
        stages = self.recipe(run)[2]
        return run.batch_size * max((stage.batch_size_factor for stage in stages), default=1)

    @cached_property
    def runs_by_arm(self) -> dict[str, tuple[Run, ...]]:
        """The runs of each arm, in the order of display, by batch size."""
        sizes = sorted(self.grid.batch_sizes)
        by_arm: dict[str, list[Run]] = {}
        by_arm["fixed"] = [Run(size, self.comparison.fixed_learning_rate, 0) for size in sizes]
        for name, arm in self._enabled_arms.items():
            # The warm-up of the study is no change.
            warmup = arm.warmup if arm.warmup != self.schedule.warmup else None
            found = [(size, arm.at(size, self._base)) for size in sizes]
            stages = arm.stages or ()
            by_arm[name] = [
                Run(size, values[0], 0, values[1], warmup, stages, arm.growth) for size, values in found if values
            ]
        if self.tuning.enabled:
            by_arm["tuned"] = [Run(size, None, 0) for size in sizes]
        by_arm["high"] = [Run(size, self.comparison.high_learning_rate, 0) for size in sizes]
        if self.branching.enabled and self.branching.batch_warmup:
            grid = [Run(size, rate, 0) for size in sizes for rate in self.grid.learning_rates]
            known = {run.setting: run for runs in (grid, *by_arm.values()) for run in runs}
            by_arm["batch_warmup"] = [
                # An unknown setting, and one with stages, is refused by other checks.
                replace(known[setting], batch_warmup=True)
                for setting in self.branched_settings
                if setting in known
            ]
        return {
            name: tuple(replace(run, seed=seed) for run in runs for seed in self.grid.seeds)
            for name, runs in by_arm.items()
        }

    @cached_property
    def runs(self) -> dict[str, Run]:
        """All runs by name: the grid and the arms, without repeats."""
        grid = {
            Run(batch_size, rate, seed)
            for batch_size in self.grid.batch_sizes
            for rate in self.grid.learning_rates
            for seed in self.grid.seeds
        }
        return {run.name: run for run in sorted(grid.union(*self.runs_by_arm.values()))}

    @cached_property
    def settings(self) -> tuple[str, ...]:
        """The settings of all runs, in their order."""
        return tuple(dict.fromkeys(run.setting for run in self.runs.values()))

    @property
    def confirmation_seeds(self) -> tuple[int, ...]:
        """The seeds with which finalists are trained again."""
        return confirmation_seeds(
            self.confirmation.seeds, (*self.grid.seeds, *self.tuning.seeds, *self.tuning.finalists.seeds)
        )

    @property
    def confirmation_runs(self) -> dict[str, tuple[int, int]]:
        """The rank of the finalist, from 1, and the seed of each run of the confirmation, by the name of the run."""
        if not self.confirmation.enabled:
            return {}
        ranks = range(1, min(self.confirmation.settings, len(self.settings)) + 1)
        return {f"rank{rank}-seed{seed}": (rank, seed) for rank in ranks for seed in self.confirmation_seeds}
