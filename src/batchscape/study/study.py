"""A study: the checked config, and the names and paths of all that it makes.

The only place that knows names. The workflow asks a `Study` what there is to make and of what; the
library's layers below never import it, so that an edit of one section makes no unrelated rule stale.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchscape.config.base import Section
from batchscape.config.data import ImageFolderConfig, source_module
from batchscape.config.device_timing import TimingSpec
from batchscape.config.loading import to_yaml
from batchscape.config.model import model_module
from batchscape.config.run import RunSpec
from batchscape.config.study import Run, StudyConfig
from batchscape.config.tuning import SearchSpec
from batchscape.data.listing import stat_digest
from batchscape.errors import UserError
from batchscape.runtime.user_code import module_file
from batchscape.study.registry import ANALYSES, FIGURES, TABLES, Product


@dataclass(frozen=True)
class Trainings:
    """Trainings of one batch size that one part of a study asks for."""

    part: str
    """`run`, `search` or `timing`."""

    batch_size: int
    count: int
    max_epochs: int


class Study(StudyConfig):
    """A study file, checked."""

    # How much there is to train.

    @property
    def trainings(self) -> list[Trainings]:
        """All trainings, those of the searches and of the timing included, by part and batch size."""
        batch_sizes = sorted(self.grid.batch_sizes)
        epochs = self.training.max_epochs
        counts = Counter(run.batch_size for run in self.runs.values())
        found = [Trainings("run", batch_size, counts[batch_size], epochs) for batch_size in batch_sizes]
        if self.tuning.enabled:
            tried = self.tuning.trials * len(self.tuning.seeds)
            searched = min(self.tuning.epochs, epochs)
            found += [Trainings("search", batch_size, tried, searched) for batch_size in batch_sizes]
        if self.device_timing.enabled:
            timed = 1 + self.device_timing.epochs
            found += [Trainings("timing", size, len(self.device_timing.device_counts), timed) for size in batch_sizes]
        return found

    @property
    def described_trainings(self) -> str:
        """How many trainings there are, in one line."""
        counts: Counter[str] = Counter()
        for trainings in self.trainings:
            counts[trainings.part] += trainings.count
        parts = [f"{counts['run']} runs"]
        if counts["search"]:
            searches = "1 search" if len(self.grid.batch_sizes) == 1 else f"{len(self.grid.batch_sizes)} searches"
            seeds = "1 seed" if len(self.tuning.seeds) == 1 else f"{len(self.tuning.seeds)} seeds"
            parts.append(f"{counts['search']} in {searches} of {self.tuning.trials} learning rates × {seeds}")
        if counts["timing"]:
            parts.append(f"{counts['timing']} of a few epochs that time devices")
        return f"{counts.total()} trainings in all: {', '.join(parts)}"

    def described_gpus(self, on_cluster: bool | None = None) -> str:
        """How many GPUs a training asks for, in one line; `on_cluster` None is not known."""
        devices, nodes, accelerator = self.resources.devices, self.resources.nodes, self.training.accelerator
        on_a_node = f"{devices} on each of {nodes} nodes" if nodes > 1 else str(devices)
        asks_for_none = "training.accelerator: auto asks a cluster for none; write `accelerator: gpu` to train on them"
        if accelerator == "cpu":
            asked = "0 (training.accelerator: cpu)"
        elif accelerator == "gpu":
            asked = on_a_node
        elif on_cluster:
            asked = f"0 ({asks_for_none})"
        else:
            asked = f"{on_a_node} where the machine has GPUs"
            asked += f", 0 on a cluster ({asks_for_none})" if on_cluster is None else ", else 0"
        return f"GPUs per training: {asked}"

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
        batch_sizes = dict.fromkeys((self.small_batch_size, self.large_batch_size))
        return tuple(Run(batch_size, self.comparison.fixed_learning_rate, 0).setting for batch_size in batch_sizes)

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """The pairs of settings to interpolate between, seed by seed."""
        default = (self.small_and_large,) if len(self.small_and_large) == 2 else ()
        return default if self.interpolation.pairs is None else self.interpolation.pairs

    def runs_of(self, analysis: str, setting: str) -> list[str]:
        """The runs of a setting at which an analysis looks."""
        shown = ANALYSES[analysis].jobs in ("planes", "shown")
        seeds = (getattr(self, analysis).seeds or self.grid.seeds[:1]) if shown else self.grid.seeds
        return [f"{setting}-seed{seed}" for seed in sorted(seeds)]

    @property
    def analyses(self) -> list[str]:
        """Those that the study file does not turn off, and for which there is something to look at."""
        return [
            name
            for name, analysis in ANALYSES.items()
            if (name not in type(self).model_fields or getattr(self, name).enabled)
            and (not analysis.is_gathered or self.parts(name))
        ]

    def parts(self, analysis: str) -> list[str]:
        """Paths of what the jobs of an analysis write, to be gathered; each can be lost and made again alone."""
        return list(self.runs_by_part(analysis))

    def runs_by_part(self, analysis: str) -> dict[str, list[str]]:
        """The parts of an analysis, each with the runs at which its job looks."""
        jobs = ANALYSES[analysis].jobs
        if not ANALYSES[analysis].is_gathered:
            return {}
        if jobs == "batch sizes":
            return {self.csv(f"analysis/lr_search/bs{batch_size}"): [] for batch_size in sorted(self.grid.batch_sizes)}
        if jobs == "pairs":
            return {
                self.csv(f"analysis/{analysis}/{one}--{other}"): [
                    run for setting in (one, other) for run in self.runs_of(analysis, setting)
                ]
                for one, other in self.pairs
            }
        if jobs == "planes":
            grid = self.landscape
            count = -(-grid.points[0] * grid.points[1] // grid.points_per_job)
            return {
                self.csv(f"analysis/landscape/{run}/directions{seed}-part{part}of{count}"): [run]
                for setting in grid.settings or self.small_and_large
                for run in self.runs_of(analysis, setting)
                for seed in grid.direction_seeds
                for part in range(1, count + 1)
            }
        settings = {
            "compared": lambda: self.compared_settings,
            "fixed": lambda: dict(self.settings_by_arm)["fixed"],
            "shown": lambda: getattr(self, analysis).settings or self.small_and_large,
        }[jobs]()
        return {self.csv(f"analysis/{analysis}/{setting}"): self.runs_of(analysis, setting) for setting in settings}

    def parts_of(self, rows: str) -> list[str]:
        """Paths of the files that are gathered in one: `tables/landscape`."""
        return next(self.parts(name) for name, analysis in ANALYSES.items() if analysis.rows == rows)

    @property
    def tables(self) -> list[str]:
        return [name for name, product in TABLES.items() if self._is_wanted(product)]

    @property
    def figures(self) -> list[str]:
        return [name for name, product in FIGURES.items() if self._is_wanted(product)]

    def sources(self, product: Product) -> list[str]:
        """What a table or figure of this study is made from."""
        return [*product.sources, *filter(self._is_made, product.optional)]

    def _is_wanted(self, product: Product) -> bool:
        return all(map(self._is_made, (*product.sources, *product.needs)))

    def _is_made(self, source: str) -> bool:
        """Whether a file is made: the rows of an analysis that is enabled, or a table whose own sources are made."""
        if source in [analysis.rows for analysis in ANALYSES.values()]:
            return source in [ANALYSES[name].rows for name in self.analyses]
        return self._is_wanted(TABLES[source.removeprefix("tables/")])

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
        return max(self.device_timing.device_counts)

    @property
    def timed_gpus(self) -> int:
        """How many GPUs the timing takes, if the machine has so many."""
        return self.analysis_gpus * self.timed_devices

    @property
    def analysis_gpus(self) -> int:
        """How many GPUs an analysis takes, if the machine has GPUs."""
        return 0 if self.training.accelerator == "cpu" else 1

    # Which jobs start first.

    def search_priority(self, batch_size: int) -> float:
        """Return the priority of a search: from 1 to 2, above all trainings, and greater for a larger batch size."""
        # Whether a batch fits in memory is then known early, and trainings at the rate of a search wait for it.
        return 1 + sorted(self.grid.batch_sizes).index(batch_size) / len(self.grid.batch_sizes)

    def run_priority(self, name: str) -> float:
        """Return the priority of a training: that of the first run of each batch size is greater the larger it is."""
        run = self.runs[name]
        first = Run(run.batch_size, self.comparison.fixed_learning_rate, self.grid.seeds[0])
        # Of the others none, or those that take longest, of the smallest batch size, would start last.
        return self.search_priority(run.batch_size) - 1 if run == first else 0

    # The modules that jobs import by name.

    @property
    def model_module(self) -> str:
        """The module that builds the network."""
        return model_module(self.model.name)

    @property
    def source_module(self) -> str:
        """The module that loads the data."""
        return source_module(self.data.source)

    # What the user brings, beside the study file.

    @property
    def own_model(self) -> tuple[Path, ...]:
        """The module of a network of the user's own. Raises UserError if it is not there."""
        return (module_file(self.model.name, "model.name"),) if ":" in self.model.name else ()

    @property
    def own_source(self) -> tuple[Path, ...]:
        """The module of a data source of the user's own. Raises UserError if it is not there."""
        return (module_file(self.data.source, "data.source"),) if ":" in self.data.source else ()

    def require_files(self, source: str) -> None:
        """Raise UserError if files that the study file, `source`, names are not there."""
        try:
            _ = self.own_model, self.own_source
        except UserError as error:
            raise UserError(f"{source}: {error}") from None
        for key, path in self.data.files.items():
            if not Path(path).exists():
                where = "" if Path(path).is_absolute() else ", counted from the folder in which the workflow runs"
                raise UserError(f"{source}: data.{key}: there is no {path}{where}; mend the path")

    # Canonical slices: what a rule depends on, as one string that is equal if and only if the slice is.

    @property
    def data_slice(self) -> str:
        return _canonical(self.data.model_dump(mode="json"))

    @property
    def data_state(self) -> str:
        """What the files of the data source look like from outside; other ones are prepared anew."""
        return _canonical([stat_digest(Path(path)) for path in self.data.files.values()])

    @property
    def network_slice(self) -> str:
        what = {"model": self.model.model_dump(mode="json"), "loss": self.training.loss}
        return _canonical(what | {"accelerator": self.training.accelerator})

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
        training = self.training.model_copy(update={"max_epochs": epochs, "checkpoints": ()})
        spec = SearchSpec(batch_size=batch_size, model=self.model, training=training, tuning=self.tuning)
        return _canonical(spec.model_dump(mode="json", exclude={"tuning": {"enabled"}}))

    @property
    def timing_slice(self) -> str:
        """The TimingSpec, as JSON."""
        training = self.training.model_copy(
            update={"max_epochs": 1 + self.device_timing.epochs, "checkpoints": (), "patience": 1}
        )
        runs = tuple(
            RunSpec(
                batch_size=batch_size,
                learning_rate=self.comparison.fixed_learning_rate,
                seed=self.grid.seeds[0],
                model=self.model,
                training=training,
            )
            for batch_size in sorted(self.grid.batch_sizes)
        )
        spec = TimingSpec(runs=runs, device_counts=tuple(sorted(self.device_timing.device_counts)))
        return _canonical(spec.model_dump(mode="json"))

    def section_slice(self, section: str) -> str:
        """What a job of an analysis does, as JSON: its section without the keys that say which jobs there are."""
        return _canonical(getattr(self, section).model_dump(mode="json") if section in type(self).model_fields else {})

    def product_slice(self, product: Product) -> str:
        """The settings of a table or figure, as JSON."""
        values = {
            **self.comparison.model_dump(mode="json"),
            "small_batch_size": self.small_batch_size,
            "large_batch_size": self.large_batch_size,
            "arms": self.settings_by_arm,
            "learning_rate_range": self.tuning.learning_rate_range,
        }
        return _canonical({key: values[key] for key in product.settings})

    @property
    def report_slice(self) -> str:
        """The study as YAML, the fixed learning rate, and the tables of each figure, the one that sums it up first, as
        JSON."""
        tables = {
            figure: [
                source.removeprefix("tables/") for source in reversed(FIGURES[figure].sources) if "tables/" in source
            ]
            for figure in self.figures
        }
        about = {
            "name": self.name,
            "config": to_yaml(_whole(self)),
            "fixed_learning_rate": self.comparison.fixed_learning_rate,
        }
        return _canonical({**about, "tables": tables})

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

    @property
    def run_files(self) -> list[str]:
        """The files that say of each run that it is whole."""
        return [self.run_file(run, "run.json") for run in self.runs]

    def run_files_of(self, analysis: str, setting: str) -> list[str]:
        """Those of the runs of a setting at which an analysis looks."""
        return [self.run_file(run, "run.json") for run in self.runs_of(analysis, setting)]

    def csv(self, name: str) -> str:
        """Path of a table or an analysis: `tables/fixed_lr`, `analysis/distance`."""
        return f"{self.folder}/{name}.csv"

    def rows(self, analysis: str) -> str:
        """Path of an analysis with the rows of all its jobs."""
        return self.csv(ANALYSES[analysis].rows)

    def figure(self, name: str, kind: str) -> str:
        return f"{self.folder}/figures/{name}.{kind}"

    @property
    def report(self) -> str:
        return f"{self.folder}/report.html"

    @property
    def partial_report(self) -> str:
        """Path of the page that `python -m batchscape report` writes; no rule makes it or reads it."""
        return f"{self.folder}/report-partial.html"

    @property
    def shown_tables(self) -> list[str]:
        """Paths of all tables that the report reads."""
        names = [*(ANALYSES[name].rows for name in self.analyses), *(f"tables/{table}" for table in self.tables)]
        return [self.csv(name) for name in names if name.startswith("tables/")]

    @property
    def files(self) -> list[str]:
        """Paths of all that the jobs of the study make, one or more a job."""
        return [
            self.prepared_data,
            self.network_file,
            *self.run_files,
            *(part for analysis in self.analyses for part in self.parts(analysis)),
            *(self.rows(analysis) for analysis in self.analyses),
            *(self.csv(f"tables/{table}") for table in self.tables),
            *(self.figure(figure, kind) for figure in self.figures for kind in ("png", "pdf")),
            self.report,
        ]

    def log(self, job: str) -> str:
        return f"{self.folder}/logs/{job}.log"

    def log_of_part(self, analysis: str, part: str) -> str:
        """Path of the log of the job that writes a part of an analysis, or all of its rows."""
        if not ANALYSES[analysis].is_gathered:
            return self.log(analysis)
        rule = "tune" if analysis == "tuning" else analysis
        return self.log(
            f"{rule}/{part.removeprefix(f'{self.folder}/analysis/').partition('/')[2].removesuffix('.csv')}"
        )

    def benchmark(self, job: str) -> str:
        return f"{self.folder}/benchmarks/{job}.tsv"


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _whole(value: Any) -> Any:
    """Return a section as in a study file, with its defaults; also keys that only say which jobs there are."""
    if isinstance(value, Section):
        fields = type(value).model_fields
        unset = value.unset_split_keys if isinstance(value, ImageFolderConfig) else ()
        found = {key: (getattr(value, key), field.default) for key, field in fields.items() if key not in unset}
        return {key: _whole(part) for key, (part, default) in found.items() if part is not None or default is not None}
    if isinstance(value, Mapping):
        return {key: _whole(part) for key, part in value.items()}
    return [_whole(part) for part in value] if isinstance(value, tuple | list) else value
