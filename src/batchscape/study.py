"""A study: the checked config, the runs that it asks for, and the names and paths of all it makes.

The only place that knows names. The workflow asks a `Study` what there is to make and of what; the
library's layers below never import it, so that an edit of one section makes no unrelated rule stale.
"""

import copy
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from batchscape.config.arms import DEFAULT_ARMS, Arms
from batchscape.config.base import Section, misfit, shortest_decimal
from batchscape.config.comparison import ComparisonConfig
from batchscape.config.data import DataConfig, DigitsConfig, validation_count
from batchscape.config.device_timing import DeviceTimingConfig, TimingSpec
from batchscape.config.gradient_alignment import GradientAlignmentConfig
from batchscape.config.grid import GridConfig
from batchscape.config.interpolation import InterpolationConfig
from batchscape.config.landscape import LandscapeConfig
from batchscape.config.loading import complaints, printable, read_yaml, to_yaml, with_numbers
from batchscape.config.model import ModelConfig, VggConfig
from batchscape.config.resources import ResourcesConfig
from batchscape.config.run import RunSpec
from batchscape.config.sharpness import SharpnessConfig
from batchscape.config.training import TrainingConfig
from batchscape.config.trajectory import TrajectoryConfig
from batchscape.config.tuning import SearchSpec, TuningConfig
from batchscape.data.listing import state_of
from batchscape.errors import UserError
from batchscape.import_path import module_file


@dataclass(frozen=True)
class Product:
    """What a table or figure is made from: CSVs below the study's folder and keys of `comparison`."""

    sources: tuple[str, ...]
    settings: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    """Sources that follow the others unless their analysis is left out."""
    needs: tuple[str, ...] = ()
    """Further files without which there is no such product, though it is not made from them."""


# The registry: a name here, a module of that name in report/tables or report/figures.
TABLES = {
    "curves": Product(("analysis/history",)),
    "fixed_lr": Product(("tables/runs",), ("fixed_lr",)),
    "lr_grid": Product(("tables/runs",)),
    "best_lr": Product(("tables/lr_grid",)),
    "arm_runs": Product(
        ("tables/runs", "analysis/distance", "analysis/update_norms"), ("arms",), optional=("analysis/sharpness",)
    ),
    "scaled_lr": Product(("tables/arm_runs",)),
    "tuned_lr": Product(("tables/trials",), ("small_batch", "lr_range")),
    "recommendation": Product(("tables/runs", "tables/best_lr"), optional=("tables/tuned_lr",)),
    "distance": Product(("analysis/distance",)),
    "distance_over_time": Product(("analysis/history",)),
    "distance_log_fit": Product(("analysis/history",)),
    "epoch_distance": Product(("analysis/epoch_distance",), ("large_batch",)),
    "update_norms": Product(("analysis/update_norms",)),
    "noise_scale": Product(("analysis/history",)),
    "runs_to_target": Product(("analysis/history",), ("target_loss",)),
    "steps_to_target": Product(("tables/runs_to_target",)),
    "critical_batch": Product(("tables/runs_to_target", "tables/steps_to_target")),
    "sharpness": Product(("analysis/sharpness",)),
    "interpolation": Product(("analysis/interpolation",)),
    "gradient_alignment": Product(("analysis/gradient_alignment",)),
    "devices": Product(("analysis/devices",)),
    "claims": Product(
        ("tables/runs", "tables/arm_runs", "analysis/history", "analysis/epoch_distance"),
        ("small_batch", "large_batch"),
    ),
}
# What a section of the study file asks for in jobs of their own, and where their rows are gathered.
GATHERED = {
    "tuning": "tables/trials",
    "sharpness": "analysis/sharpness",
    "interpolation": "analysis/interpolation",
    "landscape": "tables/landscape",
    "trajectory": "tables/trajectory",
    "gradient_alignment": "analysis/gradient_alignment",
}
# What a section asks for in one job.
ALONE = {"device_timing": "analysis/devices"}
FIGURES = {
    "curves_fixed_lr": Product(("tables/curves",), ("fixed_lr",)),
    "curves_high_lr": Product(("tables/curves",), ("high_lr",)),
    "curves_scaled_lr": Product(("tables/curves",), ("arms",)),
    "convergence_before_after": Product(("tables/arm_runs", "tables/scaled_lr")),
    "distance_before_after": Product(("tables/arm_runs", "tables/scaled_lr")),
    "sharpness_before_after": Product(("tables/arm_runs", "tables/scaled_lr"), needs=("analysis/sharpness",)),
    "convergence": Product(("tables/runs", "tables/fixed_lr"), ("fixed_lr",)),
    "devices": Product(("tables/devices",)),
    "distance": Product(("analysis/distance", "tables/distance")),
    "distance_by_layer": Product(("analysis/distance", "tables/distance"), ("fixed_lr",)),
    "distance_over_time": Product(("tables/distance_over_time", "tables/distance_log_fit"), ("fixed_lr",)),
    "epoch_distance": Product(("tables/epoch_distance",), ("fixed_lr", "small_batch", "large_batch")),
    "update_norms": Product(("analysis/update_norms", "tables/update_norms"), ("fixed_lr",)),
    "lr_search": Product(("tables/trials", "tables/tuned_lr")),
    "lr_effect": Product(("tables/runs", "tables/lr_grid", "tables/best_lr")),
    "lr_plane": Product(("tables/lr_grid", "tables/best_lr"), ("small_batch",)),
    "steps_to_target": Product(("tables/runs_to_target", "tables/steps_to_target", "tables/critical_batch")),
    "noise_scale": Product(("tables/noise_scale",), ("fixed_lr",)),
    "sharpness": Product(("analysis/sharpness", "tables/sharpness"), ("fixed_lr",)),
    "interpolation": Product(("tables/interpolation",)),
    "landscape": Product(("tables/landscape",)),
    "trajectory": Product(("tables/trajectory",)),
    "gradient_alignment": Product(("tables/gradient_alignment",)),
    "claims": Product(("tables/claims",)),
}


@dataclass(frozen=True)
class Run:
    """One training; it is named by what it is, never by who asked for it."""

    batch_size: int
    learning_rate: float | None
    """None is what the search finds for the batch size."""
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
        """What the runs of all seeds share."""
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


class Study(Section):
    """A study file, checked."""

    name: Annotated[str, Field(examples=["my-study"]), AfterValidator(_folder_name)]
    """Name of the study; everything that it makes stands in `results/<name>/`."""

    data: DataConfig = DigitsConfig()
    grid: GridConfig = GridConfig()
    model: ModelConfig = VggConfig()
    training: TrainingConfig = TrainingConfig()
    comparison: ComparisonConfig = ComparisonConfig()
    arms: Arms = DEFAULT_ARMS
    tuning: TuningConfig = TuningConfig()
    sharpness: SharpnessConfig = SharpnessConfig()
    interpolation: InterpolationConfig = InterpolationConfig()
    landscape: LandscapeConfig = LandscapeConfig()
    trajectory: TrajectoryConfig = TrajectoryConfig()
    gradient_alignment: GradientAlignmentConfig = GradientAlignmentConfig()
    device_timing: DeviceTimingConfig = DeviceTimingConfig()
    resources: ResourcesConfig = ResourcesConfig()

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any], source: str) -> Self:
        """Check a mapping; `source` names it in the messages. Raises UserError, one line for each mistake."""
        try:
            return cls.model_validate(mapping)
        except ValidationError as error:
            raise UserError("\n".join(complaints(error, cls, source))) from None

    @classmethod
    def from_file(cls, path: Path, overrides: Mapping[str, Any] | None = None) -> Self:
        """Read and check one study file; it stands alone, so what it leaves out takes the typed defaults.

        `overrides` is a nested mapping that replaces single keys of the file (the command line's `--config`).
        """
        if not overrides:
            return cls.from_mapping(read_yaml(path), printable(path))
        return cls.from_mapping(_replaced(read_yaml(path), with_numbers(overrides)), f"{printable(path)} with --config")

    @model_validator(mode="after")
    def _compared_batches_are_in_the_grid(self) -> Self:
        for key in ("small_batch", "large_batch"):
            value = getattr(self.comparison, key)
            if value is not None and value not in self.grid.batch_sizes:
                known = ", ".join(map(str, self.grid.batch_sizes))
                raise misfit(
                    f"comparison.{key}", f"{value} is not in grid.batch_sizes; use one of {known} or add it there"
                )
        if self.small_batch >= self.large_batch and len(self.grid.batch_sizes) > 1:
            key = "large_batch" if self.comparison.small_batch is None else "small_batch"
            raise misfit(
                f"comparison.{key}",
                f"the small batch, {self.small_batch}, must be smaller than the large one, {self.large_batch}; "
                "write other ones or leave both out",
            )
        return self

    @model_validator(mode="after")
    def _arms_fit_the_grid(self) -> Self:
        for name, arm in self.arms.items():
            foreign = [size for size in arm.learning_rates or () if size not in self.grid.batch_sizes]
            if foreign:
                raise misfit(
                    f"arms.{name}.learning_rates", f"batch size {foreign[0]} is not in grid.batch_sizes; add it there"
                )
            for batch_size in self.grid.batch_sizes:
                rate = arm.learning_rate(batch_size, self.comparison.fixed_lr, self.small_batch)
                if rate is not None and not 1e-30 <= rate <= 1e30:
                    raise misfit(
                        f"arms.{name}",
                        f"gives batch size {batch_size} the learning rate {rate:g}, which must be between 1e-30 and "
                        "1e30; mend its `base_lr` or `base_batch`",
                    )
            if arm.warmup_epochs > self.training.max_epochs:
                raise misfit(
                    f"arms.{name}.warmup_epochs",
                    f"{arm.warmup_epochs} is more than training.max_epochs, {self.training.max_epochs}; lower it",
                )
        return self

    @model_validator(mode="after")
    def _runs_fit_the_data(self) -> Self:
        """Refuse at once what each run would refuse, if the source's size is known beforehand."""
        size = self.data.known_size
        if size.images is not None:
            training = size.images - validation_count(size.images, self.data.validation_fraction)
            large = [batch_size for batch_size in self.grid.batch_sizes if batch_size > training]
            if large:
                raise misfit("grid.batch_sizes", f"{large[0]} is more than the {training} training images; take it out")
            alignment = self.gradient_alignment
            if alignment.enabled and alignment.largest_batch > min(training, alignment.examples or training):
                raise misfit(
                    "gradient_alignment.largest_batch",
                    f"{alignment.largest_batch} is more than the {min(training, alignment.examples or training)} "
                    "examples that it may use; give a smaller power of two",
                )
        halvings = self.model.halvings
        if size.side is not None and 2**halvings > size.side:
            raise misfit(
                "model.channels",
                f"the network halves the images {halvings} times, but they have {size.side} pixels on their shorter "
                f"side; give at most {len(self.model.channels) - halvings + size.side.bit_length() - 1}",
            )
        return self

    @model_validator(mode="after")
    def _batches_can_be_shared(self) -> Self:
        devices, least = self.resources.devices * self.resources.nodes, min(self.grid.batch_sizes)
        if devices > least:
            raise misfit(
                "resources.devices" if self.resources.nodes == 1 else "resources.nodes",
                f"{devices} devices cannot share a batch of {least}; take it out of grid.batch_sizes or lower this",
            )
        return self

    @model_validator(mode="after")
    def _analysed_runs_are_in_the_study(self) -> Self:
        known = dict.fromkeys(run.setting for run in self.runs.values())
        asked = {
            "interpolation.pairs": [name for pair in self.interpolation.pairs or () for name in pair],
            "landscape.settings": self.landscape.settings or (),
            "trajectory.settings": self.trajectory.settings or (),
        }
        for key, names in asked.items():
            for name in names:
                if name not in known:
                    raise misfit(
                        key,
                        f"{name!r} is no setting of this study; write a batch size and a learning rate that it trains, "
                        f"such as {next(iter(known))}",
                    )
        for key in ("landscape", "trajectory"):
            for seed in getattr(self, key).seeds or ():
                if seed not in self.grid.seeds:
                    raise misfit(f"{key}.seeds", f"{seed} is not in grid.seeds; add it there")
        return self

    @model_validator(mode="after")
    def _analysed_weights_are_kept(self) -> Self:
        snapshots = self.training.snapshots
        asked = {
            "sharpness.checkpoints": self.sharpness.checkpoints,
            "interpolation.checkpoint": (self.interpolation.checkpoint,),
            "landscape.checkpoint": (self.landscape.checkpoint,),
            "gradient_alignment.checkpoints": self.gradient_alignment.checkpoints,
        }
        for key, checkpoints in asked.items():
            for epoch in checkpoints:
                if isinstance(epoch, int) and epoch not in snapshots:
                    raise misfit(key, f"the weights after epoch {epoch} are not kept; add it to training.snapshots")
        if self.trajectory.enabled and not snapshots:
            raise misfit(
                "trajectory.enabled",
                "there are no weights on the way; list epochs in training.snapshots, such as [1, 3, 10, 30, 100]",
            )
        return self

    @property
    def small_batch(self) -> int:
        return self.comparison.small_batch or min(self.grid.batch_sizes)

    @property
    def large_batch(self) -> int:
        return self.comparison.large_batch or max(self.grid.batch_sizes)

    @cached_property
    def runs_by_arm(self) -> dict[str, tuple[Run, ...]]:
        """What each arm asks for, in the order in which it is shown: the runs of a batch size stand together."""
        rates = {"fixed": dict.fromkeys(self.grid.batch_sizes, (self.comparison.fixed_lr, 0))}
        for name, arm in self.arms.items():
            if arm.enabled:
                rates[name] = {
                    batch_size: (rate, arm.warmup_epochs)
                    for batch_size in self.grid.batch_sizes
                    if (rate := arm.learning_rate(batch_size, self.comparison.fixed_lr, self.small_batch)) is not None
                }
        if self.tuning.enabled:
            rates["tuned"] = dict.fromkeys(self.grid.batch_sizes, (None, 0))
        rates["high"] = dict.fromkeys(self.grid.batch_sizes, (self.comparison.high_lr, 0))
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
        """All runs by name: the full grid and the arms; what two of them ask for trains once."""
        grid = {
            Run(batch_size, rate, seed)
            for batch_size in self.grid.batch_sizes
            for rate in self.grid.learning_rates
            for seed in self.grid.seeds
        }
        return {run.name: run for run in sorted(grid.union(*self.runs_by_arm.values()))}

    # What the analyses look at.

    @property
    def settings_by_arm(self) -> list[tuple[str, list[str]]]:
        """The settings of each arm, in the order in which they are shown."""
        return [(arm, list(dict.fromkeys(run.setting for run in runs))) for arm, runs in self.runs_by_arm.items()]

    @property
    def compared_settings(self) -> list[str]:
        """The settings of all arms, each once: those of which the sharpness is compared."""
        return list(dict.fromkeys(run.setting for run in sorted(set().union(*self.runs_by_arm.values()))))

    @property
    def small_and_large(self) -> tuple[str, ...]:
        """The settings of the small and the large batch at the fixed learning rate; one if they are the same."""
        batch_sizes = dict.fromkeys((self.small_batch, self.large_batch))
        return tuple(Run(batch_size, self.comparison.fixed_lr, 0).setting for batch_size in batch_sizes)

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """The pairs of settings to interpolate between, seed by seed."""
        default = (self.small_and_large,) if len(self.small_and_large) == 2 else ()
        return default if self.interpolation.pairs is None else self.interpolation.pairs

    def seeds_of(self, analysis: str) -> tuple[int, ...]:
        """The seeds of a setting at which an analysis looks."""
        if analysis in ("landscape", "trajectory"):
            return getattr(self, analysis).seeds or self.grid.seeds[:1]
        return self.grid.seeds

    def runs_of(self, analysis: str, setting: str) -> list[str]:
        """The runs of a setting at which an analysis looks."""
        return [f"{setting}-seed{seed}" for seed in sorted(self.seeds_of(analysis))]

    def parts(self, analysis: str) -> list[str]:
        """Paths of the files that the jobs of an analysis write, each of which can be lost and made again alone."""
        if analysis == "tuning":
            return [self.csv(f"analysis/lr_search/bs{batch_size}") for batch_size in sorted(self.grid.batch_sizes)]
        if analysis == "interpolation":
            return [self.csv(f"analysis/interpolation/{one}--{other}") for one, other in self.pairs]
        if analysis == "landscape":
            grid = self.landscape
            jobs = -(-grid.points[0] * grid.points[1] // grid.points_per_job)
            return [
                self.csv(f"analysis/landscape/{run}/directions{seed}-part{part}of{jobs}")
                for setting in grid.settings or self.small_and_large
                for run in self.runs_of(analysis, setting)
                for seed in grid.direction_seeds
                for part in range(1, jobs + 1)
            ]
        settings = {
            "sharpness": lambda: self.compared_settings,
            "gradient_alignment": lambda: dict(self.settings_by_arm)["fixed"],
            "trajectory": lambda: self.trajectory.settings or self.small_and_large,
        }[analysis]()
        return [self.csv(f"analysis/{analysis}/{setting}") for setting in settings]

    def parts_of(self, gathered: str) -> list[str]:
        """Paths of the files whose rows are gathered in one: `tables/landscape`."""
        return next(self.parts(analysis) for analysis, path in GATHERED.items() if path == gathered)

    @property
    def tables(self) -> list[str]:
        return [name for name, product in TABLES.items() if self._is_wanted(product)]

    @property
    def figures(self) -> list[str]:
        return [name for name, product in FIGURES.items() if self._is_wanted(product)]

    @property
    def gathered(self) -> list[str]:
        """The analyses that are enabled, of those whose jobs are gathered."""
        return [analysis for analysis in GATHERED if getattr(self, analysis).enabled and self.parts(analysis)]

    def sources(self, product: Product) -> list[str]:
        """What a table or figure of this study is made from."""
        return [*product.sources, *filter(self._is_made, product.optional)]

    def _is_wanted(self, product: Product) -> bool:
        return all(map(self._is_made, (*product.sources, *product.needs)))

    def _is_made(self, source: str) -> bool:
        """Whether a file is made: the rows of an analysis that is enabled, or a table whose own sources are made."""
        if source in GATHERED.values():
            return source in [GATHERED[analysis] for analysis in self.gathered]
        if source in ALONE.values():
            return all(getattr(self, section).enabled for section, path in ALONE.items() if path == source)
        table = TABLES.get(source.removeprefix("tables/"))
        return table is None or self._is_wanted(table)

    # What jobs take of a machine.

    @property
    def training_gpus(self) -> int:
        """How many GPUs a training takes, if the machine has GPUs; over several nodes `slurm_gres` says it."""
        return self.analysis_gpus * self.resources.devices if self.resources.nodes == 1 else 0

    @property
    def slurm_gres(self) -> str:
        """What a training over several nodes takes of each, as sbatch's `--gres`; else empty."""
        takes = self.resources.nodes > 1 and self.training.accelerator == "gpu"
        return f"gpu:{self.resources.devices}" if takes else ""

    @property
    def slurm_tasks(self) -> int:
        """How many tasks a training is to Slurm, one a node; 0 leaves that to Slurm, which counts GPUs otherwise."""
        return 0 if self.training.accelerator == "gpu" else self.resources.nodes

    @property
    def timed_devices(self) -> int:
        """How many devices are timed at most."""
        return max(self.device_timing.devices)

    @property
    def timed_gpus(self) -> int:
        """How many GPUs the timing takes, if the machine has so many."""
        return self.analysis_gpus * self.timed_devices

    @property
    def analysis_gpus(self) -> int:
        """How many GPUs an analysis takes, if the machine has GPUs."""
        return 0 if self.training.accelerator == "cpu" else 1

    # What the user brings, beside the study file.

    @property
    def own_model(self) -> list[Path]:
        """The module of a network of the user's own. Raises UserError if it is not there."""
        return [module_file(self.model.name, "model.name")] if ":" in self.model.name else []

    @property
    def own_source(self) -> list[Path]:
        """The module of a data source of the user's own. Raises UserError if it is not there."""
        return [module_file(self.data.source, "data.source")] if ":" in self.data.source else []

    def require_files(self) -> None:
        """Raise UserError if files that the study file names are not there."""
        _ = self.own_model, self.own_source
        for key, path in self.data.files.items():
            if not Path(path).exists():
                where = "" if Path(path).is_absolute() else ", counted from the folder in which the workflow runs"
                raise UserError(f"data.{key}: there is no {path}{where}; mend the path")

    # Canonical slices: what a rule depends on, as one string that is equal if and only if the slice is.

    @property
    def data_slice(self) -> str:
        return _canonical(self.data.model_dump(mode="json"))

    @property
    def data_state(self) -> str:
        """What the files of the data source look like from outside; other ones are prepared anew."""
        return _canonical([state_of(Path(path)) for path in self.data.files.values()])

    @property
    def network_slice(self) -> str:
        return _canonical({"model": self.model.model_dump(mode="json"), "loss": self.training.loss})

    def run_slice(self, name: str) -> str:
        """The RunSpec of a run, as JSON; that of a tuned one lacks the learning rate."""
        run = self.runs[name]
        spec = RunSpec(
            batch_size=run.batch_size,
            learning_rate=run.learning_rate or 1.0,
            seed=run.seed,
            warmup_epochs=run.warmup_epochs,
            model=self.model,
            training=self.training,
        )
        return _canonical(spec.model_dump(mode="json", exclude={"learning_rate"} if run.learning_rate is None else {}))

    def search_slice(self, batch_size: int) -> str:
        """The SearchSpec of a batch size, as JSON; without what trials do not use."""
        epochs = min(self.tuning.epochs, self.training.max_epochs)  # not more than the runs that it searches for
        training = self.training.model_copy(update={"max_epochs": epochs, "snapshots": ()})
        spec = SearchSpec(batch_size=batch_size, model=self.model, training=training, tuning=self.tuning)
        return _canonical(spec.model_dump(mode="json", exclude={"tuning": {"enabled"}}))

    @property
    def timing_slice(self) -> str:
        """The TimingSpec, as JSON."""
        training = self.training.model_copy(
            update={"max_epochs": 1 + self.device_timing.epochs, "snapshots": (), "patience": 1}
        )
        runs = tuple(
            RunSpec(
                batch_size=batch_size,
                learning_rate=self.comparison.fixed_lr,
                seed=self.grid.seeds[0],
                model=self.model,
                training=training,
            )
            for batch_size in sorted(self.grid.batch_sizes)
        )
        spec = TimingSpec(runs=runs, devices=tuple(sorted(self.device_timing.devices)))
        return _canonical(spec.model_dump(mode="json"))

    def section_slice(self, section: str) -> str:
        """What a job of an analysis does, as JSON: its section without the keys that say which jobs there are."""
        return _canonical(getattr(self, section).model_dump(mode="json"))

    def product_slice(self, product: Product) -> str:
        """The settings of a table or figure, as JSON."""
        values = {
            **self.comparison.model_dump(mode="json"),
            "small_batch": self.small_batch,
            "large_batch": self.large_batch,
            "arms": self.settings_by_arm,
            "lr_range": self.tuning.range,
        }
        return _canonical({key: values[key] for key in product.settings})

    @property
    def report_slice(self) -> str:
        """The whole study as YAML, and the tables of each figure, the one that sums it up first, as JSON."""
        tables = {
            figure: [
                source.removeprefix("tables/") for source in reversed(FIGURES[figure].sources) if "tables/" in source
            ]
            for figure in self.figures
        }
        return _canonical({"name": self.name, "config": to_yaml(_whole(self)), "tables": tables})

    # Paths, relative to the folder in which the workflow runs.

    @property
    def folder(self) -> str:
        return f"results/{self.name}"

    @property
    def prepared_data(self) -> str:
        return f"{self.folder}/data/images.safetensors"

    @property
    def manifest(self) -> str:
        return f"{self.folder}/data/manifest.csv"

    @property
    def network_file(self) -> str:
        """What is known of the network once it was seen to fit the data."""
        return f"{self.folder}/network.json"

    def tuned_files(self, run: str) -> list[str]:
        """The file with the learning rate that a run trains at, if a search finds it."""
        what = self.runs[run]
        return [self.tuning_file(what.batch_size, "tuned.json")] if what.learning_rate is None else []

    def tuning_file(self, batch_size: int | str, file: str) -> str:
        return f"{self.folder}/tuning/bs{batch_size}/{file}"

    def run_file(self, run: str, file: str) -> str:
        return f"{self.folder}/runs/{run}/{file}"

    def csv(self, name: str) -> str:
        """Path of a table or an analysis: `tables/fixed_lr`, `analysis/distance`."""
        return f"{self.folder}/{name}.csv"

    def figure(self, name: str, kind: str) -> str:
        return f"{self.folder}/figures/{name}.{kind}"

    @property
    def report(self) -> str:
        return f"{self.folder}/report.html"

    @property
    def shown_tables(self) -> list[str]:
        """Paths of all tables that the report reads."""
        made = [GATHERED[analysis] for analysis in self.gathered]
        names = ["tables/runs", *(f"tables/{table}" for table in self.tables), *made]
        return [self.csv(name) for name in names if name.startswith("tables/")]

    def log(self, job: str) -> str:
        return f"{self.folder}/logs/{job}.log"

    def benchmark(self, job: str) -> str:
        return f"{self.folder}/benchmarks/{job}.tsv"


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _whole(value: Any) -> Any:
    """Return a section as in a study file, with its defaults; also keys that only say which jobs there are."""
    if isinstance(value, Section):
        fields = type(value).model_fields
        found = {key: (getattr(value, key), field.default) for key, field in fields.items()}
        return {key: _whole(part) for key, (part, default) in found.items() if part is not None or default is not None}
    if isinstance(value, Mapping):
        return {key: _whole(part) for key, part in value.items()}
    return [_whole(part) for part in value] if isinstance(value, tuple | list) else value


def _replaced(mapping: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    result = copy.deepcopy(dict(mapping))
    for key, value in overrides.items():
        old = result.get(key)
        nested = isinstance(value, Mapping) and isinstance(old, Mapping)
        result[key] = _replaced(old, value) if nested else value
    return result
