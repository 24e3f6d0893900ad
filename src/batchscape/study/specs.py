"""The settings that each job of a study depends on, as canonical JSON.

A rule has its spec as a parameter, so Snakemake reruns a job when its spec changes. Equal settings give equal text.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from batchscape.config.base import Section
from batchscape.config.budget import Budget
from batchscape.config.data.section import DataSection
from batchscape.config.device_timing import TimingSpec
from batchscape.config.loading import to_yaml
from batchscape.config.run import RunSpec
from batchscape.config.study import StudyConfig
from batchscape.config.tuning import SearchSpec, search_budget, trial_budget
from batchscape.data.listing import stat_digest
from batchscape.study.measures import describe_measures
from batchscape.study.plan import Plan
from batchscape.study.recipe import describe_length, describe_recipe, is_plain_sgd
from batchscape.study.registry import FIGURES, Artifact


@dataclass(frozen=True)
class Specs:
    """The specs of a study; jobs parse those of trainings as `RunSpec`, `SearchSpec` and `TimingSpec`."""

    config: StudyConfig
    plan: Plan

    @property
    def data(self) -> str:
        """The section `data`, and the task, which decides what the targets are."""
        return _canonical({"data": self.config.data.model_dump(mode="json"), "task": self.config.task.name})

    @property
    def data_files(self) -> str:
        """Names, sizes and times of the files of the data source: if they change, data is prepared again."""
        data = self.config.data
        return _canonical([stat_digest(Path(path)) for path in (*data.files.values(), *data.files_beside)])

    @property
    def network(self) -> str:
        """The sections that decide whether a network trains."""
        settings = {name: getattr(self.config, name).model_dump(mode="json") for name in ("model", "task", "optimizer")}
        return _canonical(settings | {"accelerator": self.config.training.accelerator})

    def run(self, name: str) -> str:
        """The RunSpec of a run; without the learning rate if a search finds it, and without measured stages."""
        run = self.config.runs[name]
        optimizer, schedule, stages = self.config.recipe(run)
        spec = RunSpec(
            batch_size=run.batch_size,
            learning_rate=run.learning_rate or 1.0,
            seed=run.seed,
            model=self.config.model,
            task=self.config.task,
            training=self.config.training,
            optimizer=optimizer,
            schedule=schedule,
            stages=stages,
            averaging=self.config.averaging,
        )
        found = {"learning_rate": run.learning_rate is None, "stages": run.batch_warmup}
        return _canonical(spec.model_dump(mode="json", exclude={key for key in found if found[key]}))

    def without_seed(self, name: str) -> str:
        """The same without the seed, which all runs of a setting share."""
        setting = self.config.runs[name].setting
        if setting not in self._settings:
            values = json.loads(self.run(name))
            del values["seed"]
            self._settings[setting] = _canonical(values)
        return self._settings[setting]

    @cached_property
    def _settings(self) -> dict[str, str]:
        """What `without_seed` has computed: Snakemake asks for every job."""
        return {}

    @property
    def tracking(self) -> str:
        """The trackers, separated by spaces."""
        return " ".join(self.config.tracking)

    @property
    def finalists(self) -> str:
        """How many settings are trained again, and the RunSpec of each setting of the study without seed.

        What all settings share is listed once. The learning rate that a search finds is missing, and so are stages that
        are measured.
        """
        first_runs = {run.setting: name for name, run in reversed(self.config.runs.items())}
        specs = {setting: json.loads(self.without_seed(name)) for setting, name in first_runs.items()}
        first, *others = specs.values()
        shared = {key: value for key, value in first.items() if all(value == spec.get(key) for spec in others)}
        own = {
            setting: {key: value for key, value in spec.items() if key not in shared} for setting, spec in specs.items()
        }
        ranks = {rank for rank, _ in self.config.confirmation_runs.values()}
        return _canonical({"count": len(ranks), "shared": shared, "settings": own})

    def search(self, batch_size: int) -> str:
        """The SearchSpec of a batch size, with its budgets, and without the settings that trials do not use."""
        tuning, training = self.config.tuning, self.config.training
        budgets = {"budget": search_budget(tuning, training), "trial_budget": trial_budget(tuning, training)}
        spec = SearchSpec(
            batch_size=batch_size,
            model=self.config.model,
            task=self.config.task,
            training=training.model_copy(update={"checkpoints": ()}),
            optimizer=self.config.optimizer,
            schedule=self.config.schedule,
            tuning=tuning.model_copy(update=budgets),
        )
        return _canonical(spec.model_dump(mode="json", exclude={"tuning": {"enabled"}}))

    @property
    def branch(self) -> str:
        """The section `branching`, without the keys that only select jobs."""
        return _canonical(self.config.branching.model_dump(mode="json"))

    @property
    def branch_factors(self) -> str:
        """The multiples of the batch size that the branches of a run have."""
        return _canonical(self.plan.branch_factors)

    @property
    def batch_warmup(self) -> str:
        """What the stages of a batch size warm-up follow from, besides the branches."""
        branching = self.config.branching
        return _canonical({"tolerance": branching.tolerance, "rule": branching.rule})

    @property
    def timing(self) -> str:
        """The TimingSpec."""
        section = self.config.device_timing
        training = self.config.training.model_copy(
            update={
                "budget": Budget(epochs=1 + section.epochs),
                "evaluate_every": Budget(epochs=1),
                "checkpoints": (),
                "patience": 1,
            }
        )
        runs = tuple(
            RunSpec(
                batch_size=batch_size,
                learning_rate=self.config.comparison.fixed_learning_rate,
                seed=self.config.grid.seeds[0],
                model=self.config.model,
                task=self.config.task,
                training=training,
                optimizer=self.config.optimizer,
                schedule=self.config.schedule,
            )
            for batch_size in sorted(self.config.grid.batch_sizes)
        )
        spec = TimingSpec(runs=runs, device_counts=tuple(sorted(section.device_counts)))
        return _canonical(spec.model_dump(mode="json"))

    def analysis(self, name: str) -> str:
        """What an analysis of the loss surface depends on: the examples, and its section.

        Without the keys of the section that only select jobs.
        """
        has_section = name in type(self.config).model_fields
        section = getattr(self.config, name).model_dump(mode="json") if has_section else {}
        return _canonical({"examples": self.config.analysis.model_dump(mode="json"), "section": section})

    def artifact(self, artifact: Artifact) -> str:
        """The settings of a table or figure."""
        settings = {
            **self.config.comparison.model_dump(mode="json"),
            "batch_sizes": sorted(self.config.grid.batch_sizes),
            "small_batch_size": self.config.small_batch_size,
            "large_batch_size": self.config.large_batch_size,
            "targets": self.config.targets,
            "arms": self.plan.settings_by_arm,
            "quantile": self.config.tuning.quantile,
            "tuning_budget": search_budget(self.config.tuning, self.config.training),
            "measures": self.measures,
            "recipe": self.recipe,
            "protocol": describe_length(self.config.training),
            "branching_tolerance": self.config.branching.tolerance,
            "metrics": [metric["name"] for metric in self.measures["metrics"]],
        }
        return _canonical({key: settings[key] for key in artifact.settings})

    @property
    def measures(self) -> dict[str, Any]:
        """The names and units of the loss and the metrics, see `describe_measures`."""
        return describe_measures(self.config.task, self.config.data)

    @property
    def recipe(self) -> str:
        """How the study trains, in words; empty for SGD at a constant rate, for which the original claims were made."""
        config = self.config
        if is_plain_sgd(config.optimizer, config.schedule):
            return ""
        return describe_recipe(config.optimizer, config.schedule, config.averaging, config.training)

    @property
    def figures(self) -> str:
        """The section `figures`: how figures look, besides what they show."""
        return _canonical(self.config.figures.model_dump(mode="json") | {"formats": self.config.figures.file_formats})

    @property
    def report(self) -> str:
        """The study as YAML, the fixed learning rate, the names and units of losses and metrics, the recipe in words,
        how long trials are if shorter than runs, how figures look, and the tables of each figure, starting with its
        summary."""
        trial, run = trial_budget(self.config.tuning, self.config.training), self.config.training.budget
        tables = {
            figure: [
                source.removeprefix("tables/")
                for source in reversed(self.plan.sources(FIGURES[figure]))
                if "tables/" in source
            ]
            for figure in self.plan.figures
        }
        return _canonical(
            {
                "name": self.config.name,
                "config": to_yaml(dump_with_defaults(self.config)),
                "fixed_learning_rate": self.config.comparison.fixed_learning_rate,
                "measures": self.measures,
                "recipe": self.recipe,
                "protocol": describe_length(self.config.training),
                "trial_budget": str(trial) if trial.amount < run.amount else "",
                "figures": json.loads(self.figures),
                "tables": tables,
            }
        )


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True)


def dump_with_defaults(value: Any) -> Any:
    """Return a section as a study file would have it, with all defaults and the keys that only select jobs."""
    if isinstance(value, Section):
        unset = value.unset_split_keys if isinstance(value, DataSection) else ()
        fields = {key: field for key, field in type(value).model_fields.items() if key not in unset}
        return {
            key: dump_with_defaults(getattr(value, key))
            for key, field in fields.items()
            if getattr(value, key) is not None or field.default is not None
        }
    if isinstance(value, Mapping):
        return {key: dump_with_defaults(part) for key, part in value.items()}
    return [dump_with_defaults(part) for part in value] if isinstance(value, tuple | list) else value
