"""What a study computes: its trainings, and the analyses, tables and figures that follow from them."""

from collections import Counter
from collections.abc import Iterable, Sized
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from batchscape.config.branching import NUM_EVALUATIONS
from batchscape.config.budget import Budget, point_name
from batchscape.config.study import Run, StudyConfig
from batchscape.config.tuning import affordable_trials, trial_budget
from batchscape.study.registry import ANALYSES, FIGURES, INTERACTIVE_SOURCES, TABLES, Artifact, JobSplit


@dataclass(frozen=True)
class TrainingGroup:
    """Trainings of one batch size that one part of a study needs.

    The batch sizes of the finalists are not known before the runs have trained: in their group it is the one that takes
    the longest.
    """

    part: Literal["run", "confirmation", "search", "finalist", "timing", "branch"]
    batch_size: int
    count: int
    budget: Budget
    evaluate_every: Budget
    evaluations: int = 1
    """Evaluations in each of these intervals."""


@dataclass(frozen=True)
class Plan:
    """The trainings, analyses, tables and figures of a study, by name."""

    config: StudyConfig

    @property
    def trainings(self) -> list[TrainingGroup]:
        """All trainings, including those of the searches, of the timing and of branches, by part and batch size."""
        tuning, timing, training = self.config.tuning, self.config.device_timing, self.config.training
        counts = Counter(run.batch_size for run in self.config.runs.values())
        batch_sizes = sorted(self.config.grid.batch_sizes)
        lengths = training.budget, training.evaluate_every
        groups = [TrainingGroup("run", size, counts[size], *lengths) for size in batch_sizes]
        if self.config.confirmation_runs:
            # An epoch takes the longest with the smallest batch, a step with the largest one.
            slowest = batch_sizes[-1] if training.budget.unit == "steps" else batch_sizes[0]
            groups.append(TrainingGroup("confirmation", slowest, len(self.config.confirmation_runs), *lengths))
        if tuning.enabled:
            trial_lengths = trial_budget(tuning, training), training.evaluate_every
            count = int(affordable_trials(tuning, training) * len(tuning.seeds))
            groups += [TrainingGroup("search", size, count, *trial_lengths) for size in batch_sizes]
            if tuning.finalists.settings:
                count = tuning.finalists.count
                groups += [TrainingGroup("finalist", size, count, *lengths) for size in batch_sizes]
        if timing.enabled:
            count, lengths = len(timing.device_counts), (Budget(epochs=1 + timing.epochs), Budget(epochs=1))
            groups += [TrainingGroup("timing", size, count, *lengths) for size in batch_sizes]
        branching = self.config.branching
        sizes = [self.config.runs[run].batch_size for run in self.branched_runs]
        branches = Counter(factor * size for size in sizes for factor in self.branch_factors)
        lengths = branching.length, branching.length
        return groups + [
            TrainingGroup("branch", size, count * len(branching.points), *lengths, NUM_EVALUATIONS)
            for size, count in sorted(branches.items())
        ]

    def describe_trainings(self) -> str:
        """Return the number of trainings, in one line; trials that end early are more than that."""
        counts: Counter[str] = Counter()
        for group in self.trainings:
            counts[group.part] += group.count
        parts = [f"{counts['run']} runs"]
        if counts["confirmation"]:
            num_seeds = len(self.config.confirmation_seeds)
            num_settings = counts["confirmation"] // num_seeds
            parts.append(
                f"{counts['confirmation']} to confirm {num_settings} setting{'s' if num_settings > 1 else ''} with "
                f"{num_seeds} other seed{'s' if num_seeds > 1 else ''}"
            )
        if counts["search"]:
            batch_sizes, tuning = self.config.grid.batch_sizes, self.config.tuning
            searches = "1 search" if len(batch_sizes) == 1 else f"{len(batch_sizes)} searches"
            trials = f"{affordable_trials(tuning, self.config.training):g} trials × {_count_seeds(tuning.seeds)}"
            finalists = tuning.finalists
            again = (
                f" and {finalists.settings} finalists × {_count_seeds(finalists.seeds)}" if counts["finalist"] else ""
            )
            count = counts["search"] + counts["finalist"]
            parts.append(f"up to {count} in {searches} of {trials}{again}, or more that end early")
        if counts["timing"]:
            parts.append(f"{counts['timing']} of a few epochs to time devices")
        if counts["branch"]:
            parts.append(f"{counts['branch']} branches of {self.config.branching.length}")
        return f"{counts.total()} trainings: {', '.join(parts)}"

    @cached_property
    def settings_by_arm(self) -> list[tuple[str, list[str]]]:
        """The settings of each arm, in the order of display."""
        return [
            (arm, list(dict.fromkeys(run.setting for run in runs))) for arm, runs in self.config.runs_by_arm.items()
        ]

    @cached_property
    def arm_settings(self) -> list[str]:
        """The settings of all arms, without repeats; their sharpness is compared."""
        return list(dict.fromkeys(run.setting for run in sorted(set().union(*self.config.runs_by_arm.values()))))

    @property
    def contrasted_settings(self) -> tuple[str, ...]:
        """The small and the large batch size at the fixed learning rate; one setting if they are equal."""
        batch_sizes = dict.fromkeys((self.config.small_batch_size, self.config.large_batch_size))
        return tuple(Run(size, self.config.comparison.fixed_learning_rate, 0).setting for size in batch_sizes)

    @property
    def interpolated_pairs(self) -> tuple[tuple[str, str], ...]:
        """The pairs of settings to interpolate between, seed by seed."""
        if self.config.interpolation.pairs is not None:
            return self.config.interpolation.pairs
        match self.contrasted_settings:
            case (small, large):
                return ((small, large),)
        return ()

    @property
    def branched_runs(self) -> list[str]:
        """The runs to branch from, which save their states; none if branching is disabled."""
        section = self.config.branching
        seeds = sorted(section.seeds or self.config.grid.seeds)
        settings = self.config.branched_settings if section.enabled else ()
        return [f"{setting}-seed{seed}" for setting in settings for seed in seeds]

    def branch_points(self, run: str) -> list[str]:
        """Return the names of the points at which a run saves its complete state; none unless it is branched."""
        points = self.config.branching.points if run in self.branched_runs else ()
        return list(map(point_name, points))

    @property
    def branch_factors(self) -> tuple[int, ...]:
        """The multiples of the batch size of a run that its branches have."""
        return (1, *sorted(self.config.branching.factors))

    def branches(self, setting: str) -> list[str]:
        """Return the parts of `branching` of all runs of a setting, as in `runs_by_part`."""
        parts = self.runs_by_part("branching").items()
        return [part for part, (run,) in parts if self.config.runs[run].setting == setting]

    def branching_cost(self, num_examples: int | None = None) -> float | None:
        """Return the length of all branches of a run, as a multiple of the budget of the run.

        Args:
            num_examples: Number of training examples; None if it is not known yet.

        Returns:
            The multiple, of the run for which it is the largest; None if it is not known without `num_examples`.
        """
        length, budget = self.config.branching.length, self.config.training.budget
        count = len(self.config.branching.points) * len(self.branch_factors)
        if length.unit == budget.unit:
            return count * length.amount / budget.amount
        if num_examples is None:
            return None
        # A budget in steps has the fewest epochs with the smallest batch size.
        smallest = min(self.config.runs[run].batch_size for run in self.branched_runs)
        lengths = (each.in_epochs(smallest, num_examples) for each in (length, budget))
        return count * next(lengths) / next(lengths)

    def describe_branching(self, num_examples: int | None = None) -> list[str]:
        """Return a line with the cost of the branches, see `branching_cost`; none if branching is disabled."""
        if not self.branched_runs:
            return []
        count, cost = len(self.config.branching.points) * len(self.branch_factors), self.branching_cost(num_examples)
        runs = "1 run" if len(self.branched_runs) == 1 else f"each of {len(self.branched_runs)} runs"
        share = "of a length that is known once the data is prepared" if cost is None else f"as long as {cost:.3g} runs"
        return [f"branching: {count} branches of {self.config.branching.length} for {runs}, together {share}"]

    @cached_property
    def analyses(self) -> list[str]:
        """The analyses that the study file enables and that have runs to read."""
        return [
            name
            for name, analysis in ANALYSES.items()
            if (name not in type(self.config).model_fields or getattr(self.config, name).enabled)
            and (not analysis.is_split or self.runs_by_part(name))
        ]

    def analyzed_runs(self, analysis: str, setting: str) -> list[str]:
        """Return the runs of a setting that an analysis reads."""
        seeds = self.config.grid.seeds
        if ANALYSES[analysis].split in (JobSplit.PLANE_PARTS, JobSplit.SELECTED_SETTINGS):
            # A section without seeds has those of the grid.
            seeds = getattr(getattr(self.config, analysis), "seeds", seeds) or seeds[:1]
        return [f"{setting}-seed{seed}" for seed in sorted(seeds)]

    def runs_by_part(self, analysis: str) -> dict[str, list[str]]:
        """Return the parts of an analysis, one per job, each with the runs that the job reads.

        A part is named like a table (`analysis/sharpness/bs32-lr0.01`). There are none if a single job does it all.
        """
        settings: Iterable[str]
        match ANALYSES[analysis].split:
            case JobSplit.BATCH_SIZES:
                return {f"analysis/lr_search/bs{size}": [] for size in sorted(self.config.grid.batch_sizes)}
            case JobSplit.SETTING_PAIRS:
                return {
                    f"analysis/{analysis}/{first}--{second}": [
                        run for setting in (first, second) for run in self.analyzed_runs(analysis, setting)
                    ]
                    for first, second in self.interpolated_pairs
                }
            case JobSplit.BRANCH_POINTS:
                return {
                    f"branches/{run}/at{point}": [run]
                    for run in self.branched_runs
                    for point in self.branch_points(run)
                }
            case JobSplit.PLANE_PARTS:
                section = self.config.landscape
                count = -(-section.points[0] * section.points[1] // section.points_per_job)
                return {
                    f"analysis/{analysis}/{run}/directions{seed}-part{part}of{count}": [run]
                    for setting in section.settings or self.contrasted_settings
                    for run in self.analyzed_runs(analysis, setting)
                    for seed in section.direction_seeds
                    for part in range(1, count + 1)
                }
            case JobSplit.ARM_SETTINGS:
                settings = self.arm_settings
            case JobSplit.FIXED_RATE_SETTINGS:
                settings = dict(self.settings_by_arm)["fixed"]
            case JobSplit.SELECTED_SETTINGS:
                settings = getattr(self.config, analysis).settings or self.contrasted_settings
            case _:
                return {}
        return {f"analysis/{analysis}/{setting}": self.analyzed_runs(analysis, setting) for setting in settings}

    @property
    def tables(self) -> list[str]:
        return [name for name, table in TABLES.items() if self._has_sources(table)]

    @property
    def figures(self) -> list[str]:
        return [name for name, figure in FIGURES.items() if self._has_sources(figure)]

    @property
    def interactive_sources(self) -> list[str]:
        """The results run by run that the interactive figures of the report show."""
        return list(filter(self._is_made, INTERACTIVE_SOURCES))

    def sources(self, artifact: Artifact) -> list[str]:
        """Return the sources of a table or figure in this study."""
        return [*artifact.sources, *self.optional_sources(artifact)]

    def optional_sources(self, artifact: Artifact) -> list[str]:
        """Return the optional sources of a table or figure that this study has."""
        return list(filter(self._is_made, artifact.optional_sources))

    def _has_sources(self, artifact: Artifact) -> bool:
        has_arm = artifact.arm is None or artifact.arm in self.config.runs_by_arm
        return has_arm and all(map(self._is_made, (*artifact.sources, *artifact.requires)))

    def _is_made(self, source: str) -> bool:
        """Whether a study has a source: the rows of an enabled analysis, or a table that has its own sources."""
        if source in (analysis.rows for analysis in ANALYSES.values()):
            return source in (ANALYSES[name].rows for name in self.analyses)
        return self._has_sources(TABLES[source.removeprefix("tables/")])


def _count_seeds(seeds: Sized) -> str:
    return "1 seed" if len(seeds) == 1 else f"{len(seeds)} seeds"
