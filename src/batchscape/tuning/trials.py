"""The trials of a search: Optuna suggests, a function evaluates, and a killed search resumes from the journal."""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from batchscape.config.tuning import TuningConfig
from batchscape.tuning.rules import (
    FINALIST,
    GRID,
    PRUNED,
    SEARCH,
    Outcome,
    Proposal,
    Trial,
    choose,
    choose_finalists,
    excess_losses,
    is_tried,
    next_setting,
    robust_losses,
)
from batchscape.tuning.space import Point, Space, grid, to_hyperparameters

# If many trials end early, a search has at most so many times the trials that its budget pays at full length.
MAX_TRIALS_FACTOR = 2
# Attributes of Optuna's trials.
STAGE, IS_PRUNABLE, POINT, OUTCOMES = "stage", "is prunable", "point", "outcomes"

Report = Callable[[int, float], bool]
"""Called with the number of an evaluation, from 1, and the lowest validation loss so far; returns whether to stop."""


class Evaluate(Protocol):
    """Trains a run, or takes the place of that."""

    def __call__(
        self, hyperparameters: Mapping[str, float], seed: int, *, is_complete: bool, report: Report | None
    ) -> Outcome:
        """Return the outcome of a setting with one seed.

        Args:
            hyperparameters: The setting by name, such as `learning_rate`.
            seed: The seed.
            is_complete: Whether to train for the complete budget, as finalists do, or for that of a trial.
            report: To be called after each evaluation; None if there is nothing to report to. If it returns True, the
                run stops, and its status is `pruned`.
        """


@dataclass(frozen=True)
class Cost:
    """What the trials of a search may cost.

    Attributes:
        trials: Number of trials of full length that are paid; it may be a fraction.
        examples: Training examples of such a trial, all seeds together.
        evaluations: Evaluations of a run of it.
    """

    trials: float
    examples: int
    evaluations: int

    @property
    def total(self) -> float:
        """Training examples of all trials."""
        return self.trials * self.examples


@dataclass(frozen=True)
class Studies:
    """The Optuna studies of a search, in one storage.

    Attributes:
        storage: The storage.
        trials: Name of the study of the trials.
        finalists: Name of the study of the finalists.
        attributes: Attributes of the former, for people who read the journal.
    """

    storage: BaseStorage
    trials: str
    finalists: str
    attributes: Mapping[str, Any]


class Search:
    """A search, which resumes from what is in its studies.

    With the same function and the same settings it has the same trials, whether it was killed or not, and with a larger
    budget the same ones and more.
    """

    def __init__(
        self,
        tuning: TuningConfig,
        values: Mapping[str, float],
        cost: Cost,
        evaluate: Evaluate,
        studies: Studies,
        on_trial: Callable[[Trial], None] = lambda _: None,
    ):
        """Open or create the studies of a search.

        Args:
            tuning: What is searched, and how.
            values: The hyperparameters of the study by name, as far as they are known.
            cost: What the trials may cost.
            evaluate: Trains a run.
            studies: Where the trials are.
            on_trial: Called after each trial that was not in a study before.
        """
        _silence_optuna()
        self.tuning = tuning
        self.storage = studies.storage
        self.space = Space.of(tuning.hyperparameters.ranges, tuning.max_extension, tuning.startup_trials)
        self.grid = grid(self.space, values, tuning.startup_trials)
        self.cost = cost
        self.evaluate = evaluate
        self.on_trial = on_trial
        pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
        if tuning.pruner == "median":
            # The trials of the grid are all complete, and learning rates differ most in how they begin.
            warmup = math.ceil(cost.evaluations / 2)
            pruner = optuna.pruners.MedianPruner(n_startup_trials=tuning.startup_trials, n_warmup_steps=warmup)
        self.trials_study, self.finalists_study = (
            optuna.create_study(storage=studies.storage, study_name=name, pruner=pruner, load_if_exists=True)
            for name in (studies.trials, studies.finalists)
        )
        for study in (self.trials_study, self.finalists_study):
            study.set_metric_names(["validation loss"])
        for name, value in studies.attributes.items():
            self.trials_study.set_user_attr(name, value)

    @property
    def num_recorded(self) -> int:
        """Number of trials that are complete in the studies, including those of a larger budget."""
        return len(_finished(self.trials_study)) + len(_finished(self.finalists_study))

    def run(self) -> tuple[list[Trial], int]:
        """Run the search, or what is left of it.

        Returns:
            The trials and then the finalists, numbered consecutively, and the index of the one with the best setting.
        """
        trials = list(self._trials())
        quantile, margin = self.tuning.quantile, self.tuning.margin
        excess = excess_losses(trials, quantile, margin)
        count = self.tuning.finalists.settings
        indices = choose_finalists(trials, count or len(trials), self.space, quantile, margin)
        if not indices:  # all losses are infinite
            return trials, min(range(len(trials)), key=lambda index: trials[index].rate)
        if count == 0:
            return trials, indices[choose([trials[index] for index in indices], quantile, excess[indices])]
        finalists = [self._finalist(trials[index].point, len(trials) + place) for place, index in enumerate(indices)]
        return [*trials, *finalists], len(trials) + choose(finalists, quantile, excess[indices])

    def _trials(self) -> Iterator[Trial]:
        """Yield the trials that the budget pays."""
        recorded = [_read(trial, trial.number) for trial in _finished(self.trials_study)]
        trials: list[Trial] = []
        while self._is_paid(trials):
            if len(trials) < len(recorded):
                trial = recorded[len(trials)]
            elif proposal := self._next(trials):
                trial = self._evaluate(self.trials_study, proposal, len(trials))
            else:
                return
            trials.append(trial)
            yield trial

    def _is_paid(self, trials: Sequence[Trial]) -> bool:
        """Whether the budget pays one more trial of full length."""
        spent = sum(trial.examples for trial in trials)
        is_affordable = spent + self.cost.examples <= self.cost.total * (1 + 1e-9)
        is_in_grid = len(trials) < self.tuning.startup_trials
        return is_in_grid or (is_affordable and len(trials) < MAX_TRIALS_FACTOR * self.cost.trials)

    def _next(self, trials: Sequence[Trial]) -> Proposal | None:
        """Return the next setting to try; None if the sampler suggests one that was tried, so that it has converged."""
        tuning = self.tuning
        if unfinished := _unfinished(self.trials_study):
            attributes = unfinished.user_attrs
            return Proposal(attributes[STAGE], _point(unfinished), attributes[IS_PRUNABLE])
        if len(trials) < tuning.startup_trials:
            return Proposal(GRID, self.grid[len(trials)], is_prunable=False)
        if proposal := next_setting(trials, self.space, tuning.quantile, tuning.margin):
            return proposal
        point = self._suggest(trials)
        return None if is_tried(point, trials) else Proposal(SEARCH, point, is_prunable=True)

    def _suggest(self, trials: Sequence[Trial]) -> Point:
        """Return where a Gaussian process of the robust losses expects the largest improvement."""
        # A new sampler for each trial: its suggestion depends on the trials before it, not on when the job started.
        seed = np.random.SeedSequence([self.tuning.sampler_seed, len(trials)]).generate_state(1)
        sampler = optuna.samplers.GPSampler(seed=int(seed[0]), n_startup_trials=1)
        study = optuna.create_study(sampler=sampler)
        space = self.space.including([trial.point for trial in trials])
        losses = robust_losses(trials, self.tuning.quantile, self.tuning.margin)
        for trial, loss in zip(trials, losses, strict=True):
            if space.allows(trial.point):
                point = space.clip(trial.point)  # which rounding may have put outside
                study.add_trial(create_trial(params=point, distributions=space.distributions, value=float(loss)))
        return study.ask(space.distributions).params

    def _finalist(self, point: Point, number: int) -> Trial:
        """Return a setting that trained again, or train it again."""
        for trial in _finished(self.finalists_study):
            if _point(trial) == point:
                return _read(trial, number)
        return self._evaluate(self.finalists_study, Proposal(FINALIST, point, is_prunable=False), number)

    def _evaluate(self, study: optuna.Study, proposal: Proposal, number: int) -> Trial:
        """Evaluate a setting with all seeds, as a trial of a study, perhaps one that a killed job left unfinished."""
        is_finalist = proposal.stage == FINALIST
        seeds = self.tuning.finalists.seeds if is_finalist else self.tuning.seeds
        trial = self._start(study, proposal)
        outcomes: dict[int, Outcome] = {}
        for index, seed in enumerate(seeds):
            # The pruner looks at the lowest loss of all reports of a trial, so a second seed would never be pruned.
            report = None if is_finalist or index else self._reporter(trial, proposal.is_prunable)
            outcomes[seed] = self.evaluate(
                to_hyperparameters(proposal.point), seed, is_complete=is_finalist, report=report
            )
            if outcomes[seed].status == PRUNED:
                break
        result = Trial(number, proposal.stage, proposal.point, outcomes)
        trial.set_user_attr(OUTCOMES, [{"seed": seed, **_to_json(outcome)} for seed, outcome in outcomes.items()])
        if result.is_pruned:
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, result.loss(self.tuning.quantile))
        self.on_trial(result)
        return result

    def _reporter(self, trial: optuna.Trial, is_prunable: bool) -> Report:
        """Return the function that reports the evaluations of a run to the journal, and asks the pruner."""
        reported = self.trials_study.get_trials(deepcopy=False)[trial.number].intermediate_values
        last = max(reported, default=0)

        def report(evaluation: int, loss: float) -> bool:
            if evaluation < last:  # a killed job has reported it, and was not to stop there
                return False
            if evaluation > last:
                trial.report(loss, evaluation)
            return is_prunable and trial.should_prune()

        return report

    def _start(self, study: optuna.Study, proposal: Proposal) -> optuna.Trial:
        """Return a new trial of a study, or the one of this setting that a killed job left unfinished."""
        trial = self._resume(study)
        if trial is None:
            attributes = {STAGE: proposal.stage, IS_PRUNABLE: proposal.is_prunable, POINT: dict(proposal.point)}
            study.enqueue_trial(dict(proposal.point), user_attrs=attributes)
            trial = study.ask()
        if _point(trial) != proposal.point:  # a finalist of another budget
            study.tell(trial, state=TrialState.FAIL)
            return self._start(study, proposal)
        for name, value in proposal.point.items():
            low, high = self.space.lower_limits[name], self.space.upper_limits[name]
            trial.suggest_float(name, min(low, value), max(high, value), log=True)
        return trial

    def _resume(self, study: optuna.Study) -> optuna.Trial | None:
        """Return the trial that a killed job left unfinished."""
        if study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            return study.ask()
        if unfinished := _unfinished(study):
            # A study resumes no trial itself, and a trial's id is public only through the storage.
            study_id = self.storage.get_study_id_from_name(study.study_name)
            trial_id = self.storage.get_trial_id_from_study_id_trial_number(study_id, unfinished.number)
            return optuna.Trial(study, trial_id)
        return None


def _silence_optuna() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    warnings.filterwarnings("ignore", message="Clip non-finite values")  # of trials that diverged


def _finished(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))


def _unfinished(study: optuna.Study) -> FrozenTrial | None:
    return next(iter(study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))), None)


def _point(trial: optuna.Trial | FrozenTrial) -> dict[str, float]:
    """Return the coordinates of a trial, also if a job was killed before it recorded them as parameters."""
    return dict(trial.user_attrs[POINT])


def _read(trial: FrozenTrial, number: int) -> Trial:
    outcomes = {each["seed"]: _from_json(each) for each in trial.user_attrs[OUTCOMES]}
    return Trial(number, trial.user_attrs[STAGE], _point(trial), outcomes)


def _to_json(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome for JSON, which has no nan and no infinity."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in asdict(outcome).items()
    }


def _from_json(values: Mapping[str, Any]) -> Outcome:
    missing = {"loss": math.inf, "initial_loss": math.inf, "best_epoch": math.nan}
    given = {name: value for name, value in values.items() if name != "seed" and value is not None}
    return Outcome(**missing | given)
