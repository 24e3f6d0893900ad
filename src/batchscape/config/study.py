"""A checked study file, and its runs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from batchscape.config.analysis import AnalysisConfig
from batchscape.config.arms import DEFAULT_ARMS, Arms
from batchscape.config.base import Section, cross_field_error, shortest_decimal
from batchscape.config.comparison import ComparisonConfig
from batchscape.config.data import DEFAULT_TASKS, DataConfig, DigitsConfig, held_out_count
from batchscape.config.device_timing import DeviceTimingConfig
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
from batchscape.config.resources import ResourcesConfig
from batchscape.config.sharpness import SharpnessConfig
from batchscape.config.task import ClassificationConfig, TaskConfig
from batchscape.config.training import TrainingConfig
from batchscape.config.trajectory import TrajectoryConfig
from batchscape.config.tuning import TuningConfig
from batchscape.errors import UserError


@dataclass(frozen=True)
class Run:
    """One training, named by its settings, not by the arms that need it."""

    batch_size: int
    learning_rate: float | None
    """None: the rate that the search finds for the batch size."""
    seed: int
    warmup_epochs: int = 0

    def __lt__(self, other: Self) -> bool:
        return self._place < other._place

    @property
    def _place(self) -> tuple[float, ...]:
        rate = math.inf if self.learning_rate is None else self.learning_rate
        return self.batch_size, rate, self.seed, self.warmup_epochs

    @property
    def setting(self) -> str:
        """What runs that differ only in their seed share."""
        rate = "tuned" if self.learning_rate is None else shortest_decimal(self.learning_rate)
        warmup = f"-warmup{self.warmup_epochs}" if self.warmup_epochs else ""
        return f"bs{self.batch_size}-lr{rate}{warmup}"

    @property
    def name(self) -> str:
        return f"{self.setting}-seed{self.seed}"


def _folder_name(name: str) -> str:
    if not (name.isascii() and name.replace("-", "").replace("_", "").isalnum() and len(name) <= 100):
        raise ValueError(f"must be at most 100 letters, digits, `-` and `_`, got {name!r}; write `name: my-study`")
    return name


class StudyConfig(Section):
    """A study file, checked."""

    name: Annotated[str, Field(examples=["my-study"]), AfterValidator(_folder_name)]
    """Name of the study; all its results are in `results/<name>/`."""

    data: DataConfig = DigitsConfig()
    task: TaskConfig = ClassificationConfig()
    grid: GridConfig = GridConfig()
    model: ModelConfig = VggConfig()
    training: TrainingConfig = TrainingConfig()
    comparison: ComparisonConfig = ComparisonConfig()
    arms: Arms = DEFAULT_ARMS
    tuning: TuningConfig = TuningConfig()
    analysis: AnalysisConfig = AnalysisConfig()
    sharpness: SharpnessConfig = SharpnessConfig()
    interpolation: InterpolationConfig = InterpolationConfig()
    landscape: LandscapeConfig = LandscapeConfig()
    trajectory: TrajectoryConfig = TrajectoryConfig()
    gradient_alignment: GradientAlignmentConfig = GradientAlignmentConfig()
    device_timing: DeviceTimingConfig = DeviceTimingConfig()
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
    def _target_loss_can_be_reached(self) -> Self:
        target = self.comparison.target_loss
        # Only a loss of the user's own can be negative.
        if target is not None and target <= 0 and ":" not in self.task.loss:
            raise cross_field_error(
                "comparison.target_loss", f"must be above 0, as the losses of {self.task.name} are, got {target:g}"
            )
        return self

    @model_validator(mode="after")
    def _arms_fit_the_grid(self) -> Self:
        for name, arm in self.arms.items():
            foreign = [size for size in arm.learning_rates or () if size not in self.grid.batch_sizes]
            if foreign:
                raise cross_field_error(
                    f"arms.{name}.learning_rates", f"batch size {foreign[0]} is not in grid.batch_sizes; add it there"
                )
            for batch_size in self.grid.batch_sizes:
                rate = arm.learning_rate(batch_size, self.comparison.fixed_learning_rate, self.small_batch_size)
                if rate is not None and not 1e-30 <= rate <= 1e30:
                    raise cross_field_error(
                        f"arms.{name}",
                        f"gives batch size {batch_size} the learning rate {rate:g}, which must be between 1e-30 and "
                        "1e30; change its `base_learning_rate` or `base_batch_size`",
                    )
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
    def _runs_fit_the_data(self) -> Self:
        """Check what each run would check, if the size of the source is known in advance."""
        size = self.data.known_size
        if size.images is not None:
            training = size.images - held_out_count(size.images, self.data.validation_fraction)
            training -= held_out_count(size.images, self.data.test_fraction)
            large = [batch_size for batch_size in self.grid.batch_sizes if batch_size > training]
            if large:
                raise cross_field_error(
                    "grid.batch_sizes",
                    f"{large[0]} is more than the {training} training {self.data.example_noun}; remove it",
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
        known = dict.fromkeys(run.setting for run in self.runs.values())
        used_settings = {
            "interpolation.pairs": [name for pair in self.interpolation.pairs or () for name in pair],
            "landscape.settings": self.landscape.settings or (),
            "trajectory.settings": self.trajectory.settings or (),
        }
        for key, names in used_settings.items():
            for name in names:
                if name not in known:
                    raise cross_field_error(
                        key,
                        f"{name!r} is not a setting of this study; settings are such as {next(iter(known))}",
                    )
        for key in ("landscape", "trajectory"):
            for seed in getattr(self, key).seeds or ():
                if seed not in self.grid.seeds:
                    raise cross_field_error(f"{key}.seeds", f"{seed} is not in grid.seeds; add it there")
        return self

    @model_validator(mode="after")
    def _analyzed_weights_are_saved(self) -> Self:
        saved_epochs = self.training.checkpoints
        used_checkpoints = {
            "sharpness.checkpoints": self.sharpness.checkpoints,
            "interpolation.checkpoint": (self.interpolation.checkpoint,),
            "landscape.checkpoint": (self.landscape.checkpoint,),
            "gradient_alignment.checkpoints": self.gradient_alignment.checkpoints,
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
    def small_batch_size(self) -> int:
        return self.comparison.small_batch_size or min(self.grid.batch_sizes)

    @property
    def large_batch_size(self) -> int:
        return self.comparison.large_batch_size or max(self.grid.batch_sizes)

    @cached_property
    def runs_by_arm(self) -> dict[str, tuple[Run, ...]]:
        """The runs of each arm, in the order of display, by batch size."""
        rates: dict[str, dict[int, tuple[float | None, int]]] = {
            "fixed": dict.fromkeys(self.grid.batch_sizes, (self.comparison.fixed_learning_rate, 0))
        }
        for name, arm in self.arms.items():
            if arm.enabled:
                rates[name] = {
                    batch_size: (rate, arm.warmup_epochs)
                    for batch_size in self.grid.batch_sizes
                    if (
                        rate := arm.learning_rate(
                            batch_size, self.comparison.fixed_learning_rate, self.small_batch_size
                        )
                    )
                    is not None
                }
        if self.tuning.enabled:
            rates["tuned"] = dict.fromkeys(self.grid.batch_sizes, (None, 0))
        rates["high"] = dict.fromkeys(self.grid.batch_sizes, (self.comparison.high_learning_rate, 0))
        return {
            name: tuple(
                Run(batch_size, rate, seed, warmup)
                for batch_size, (rate, warmup) in sorted(by_batch_size.items())
                for seed in self.grid.seeds
            )
            for name, by_batch_size in rates.items()
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
