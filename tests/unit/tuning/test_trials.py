"""Searches on made-up losses: budget, pruning, resuming, and rates from which on training fails."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from batchscape.config.tuning import TuningConfig
from batchscape.tuning.journal import open_journal
from batchscape.tuning.rules import COMPLETED, DIVERGED, EXTENSION, FINALIST, PRUNED, Outcome, Trial
from batchscape.tuning.trials import Cost, Report, Search, Studies

INITIAL_LOSS = 3.0
EVALUATIONS = 10
EXAMPLES = 1000
COST = Cost(trials=9, examples=2 * EXAMPLES, evaluations=EVALUATIONS)


class Killed(Exception):
    """Raised in place of a kill."""


def valley(rate: float, best: float = 0.1) -> float:
    return 0.1 + 0.1 * math.log(rate / best) ** 2


class Function:
    """A training whose loss falls to `valley` in ten evaluations, and which may be killed."""

    def __init__(
        self, loss: Callable[[float, int], float] = lambda rate, _: valley(rate), kill_at: float | str = math.inf
    ):
        self.loss = loss
        self.kill_at = kill_at
        self.calls = 0
        self.calls_of_trainings: list[tuple[float, int, bool]] = []

    def __call__(self, hyperparameters, seed, *, is_complete, report) -> Outcome:
        rate = hyperparameters["learning_rate"]
        self.calls_of_trainings.append((rate, seed, is_complete))
        final = self.loss(rate, seed)
        if math.isinf(final):
            return Outcome(math.inf, DIVERGED, INITIAL_LOSS, math.nan, EXAMPLES // EVALUATIONS, 1.0)
        for evaluation in range(1, EVALUATIONS):
            self.calls += 1
            if self.calls == self.kill_at:
                raise Killed
            value = final * (1 + 1 / evaluation)
            if report and report(evaluation, value):
                if self.kill_at == PRUNED:
                    raise Killed
                return Outcome(
                    value, PRUNED, INITIAL_LOSS, float(evaluation), evaluation * EXAMPLES // EVALUATIONS, 1.0
                )
        return Outcome(final, COMPLETED, INITIAL_LOSS, float(EVALUATIONS), EXAMPLES, 1.0)


def tuning_of(**settings) -> TuningConfig:
    values = {"learning_rate": (0.01, 1.0)}
    return TuningConfig(**{"hyperparameters": values, "startup_trials": 3, "seeds": (5, 6), **settings})


def search_with(function: Function, journal: Path, tuning: TuningConfig, cost: Cost = COST) -> tuple[list[Trial], int]:
    studies = Studies(open_journal(journal), "trials", "finalists", {})
    return Search(tuning, {}, cost, function, studies).run()


def shape(trials: list[Trial]) -> list[tuple]:
    return [(trial.number, trial.stage, dict(trial.point), dict(trial.outcomes)) for trial in trials]


def test_search_finds_the_valley_and_spends_its_budget_on_three_stages(tmp_path: Path):
    function = Function()
    trials, best = search_with(function, tmp_path / "journal", tuning_of())
    stages = [trial.stage for trial in trials]
    assert stages[:3] == ["grid"] * 3
    count = stages.count(FINALIST)
    assert stages[-count:] == [FINALIST] * count
    assert trials[best].stage == FINALIST
    assert 0.07 < trials[best].rate < 0.14
    assert [trial.number for trial in trials] == list(range(len(trials)))
    finalists = [call for call in function.calls_of_trainings if call[2]]
    assert [seed for _, seed, _ in finalists] == [200, 201, 202] * count
    spent = sum(trial.examples for trial in trials if trial.stage != FINALIST)
    assert spent <= COST.total


def test_pruned_trials_cost_only_what_they_trained(tmp_path: Path):
    # A valley at the upper end makes the trials beyond it bad: they end after half of the first seed.
    tuning = tuning_of(max_extension=100, margin=1.0)
    trials, _ = search_with(Function(lambda rate, _: valley(rate, best=0.9)), tmp_path / "one", tuning)
    pruned = [trial for trial in trials if trial.is_pruned]
    assert pruned
    for trial in pruned:
        (outcome,) = trial.outcomes.values()
        assert outcome.examples == EXAMPLES // 2
    searched = [trial for trial in trials if trial.stage != FINALIST]
    unpruned, _ = search_with(
        Function(lambda rate, _: valley(rate, best=0.9)), tmp_path / "two", tuning.model_copy(update={"pruner": "none"})
    )
    assert not any(trial.is_pruned for trial in unpruned)
    assert len(searched) >= sum(trial.stage != FINALIST for trial in unpruned)
    assert sum(trial.examples for trial in searched) <= COST.total


def test_only_the_run_with_the_first_seed_of_a_trial_asks_the_pruner(tmp_path: Path):
    function, asked = Function(), set()

    def evaluate(hyperparameters: dict[str, float], seed: int, *, is_complete: bool, report: Report | None) -> Outcome:
        asked.add((seed, report is not None))
        return function(hyperparameters, seed, is_complete=is_complete, report=report)

    search_with(evaluate, tmp_path / "journal", tuning_of())
    assert asked == {(5, True), (6, False), *((seed, False) for seed in (200, 201, 202))}


@pytest.mark.parametrize("kill_at", [1, 30, 61, 66, PRUNED])
def test_killed_search_has_the_same_trials_and_trains_none_again(kill_at: int | str, tmp_path: Path):
    """The search is killed at an evaluation, or after the pruner has stopped a run and before this is recorded."""
    tuning = tuning_of(max_extension=100, margin=1.0)
    loss = lambda rate, seed: valley(rate, best=0.9) + seed / 1000  # noqa: E731
    reference = search_with(Function(loss), tmp_path / "reference", tuning)
    assert any(trial.is_pruned for trial in reference[0])
    killed = Function(loss, kill_at)
    with pytest.raises(Killed):
        search_with(killed, tmp_path / "journal", tuning)
    again = Function(loss)
    trials, best = search_with(again, tmp_path / "journal", tuning)
    assert (shape(trials), best) == (shape(reference[0]), reference[1])
    # Only the trial that was interrupted is evaluated in both.
    count = sum(len(trial.outcomes) for trial in trials)
    assert count <= len(killed.calls_of_trainings) + len(again.calls_of_trainings) <= count + 3
    nothing = Function(loss)
    assert search_with(nothing, tmp_path / "journal", tuning)[1] == best
    assert not nothing.calls_of_trainings


def test_larger_budget_continues_and_a_smaller_one_uses_the_first_trials(tmp_path: Path):
    tuning = tuning_of(finalists={"settings": 1})
    noisy = lambda rate, seed: valley(rate) * (1 + 0.1 * math.sin(1000 * rate + seed))  # noqa: E731
    small, large = replace(COST, trials=5), replace(COST, trials=8)
    direct, best = search_with(Function(noisy), tmp_path / "direct", tuning, large)
    first, _ = search_with(Function(noisy), tmp_path / "journal", tuning, small)
    function = Function(noisy)
    more, best_of_more = search_with(function, tmp_path / "journal", tuning, large)
    assert (shape(more), best_of_more) == (shape(direct), best)
    assert len(function.calls_of_trainings) < sum(len(trial.outcomes) for trial in direct)
    again = Function(noisy)
    assert shape(search_with(again, tmp_path / "journal", tuning, small)[0]) == shape(first)
    assert not again.calls_of_trainings


def test_range_extends_no_further_than_its_limit(tmp_path: Path):
    falling = lambda rate, _: 1 / (1 + rate)  # noqa: E731
    trials, best = search_with(Function(falling), tmp_path / "journal", tuning_of(max_extension=3.0))
    extensions = [trial.rate for trial in trials if trial.stage == EXTENSION]
    assert extensions == [3.0]
    assert trials[best].rate <= 3.0
    # A margin above the limit is tried, but not chosen.
    assert max(trial.rate for trial in trials) == pytest.approx(4.5)


def test_without_finalists_a_trial_is_chosen(tmp_path: Path):
    trials, best = search_with(Function(), tmp_path / "journal", tuning_of(finalists={"settings": 0}))
    assert trials[best].stage != FINALIST
    assert {trial.stage for trial in trials} & {FINALIST} == set()


def test_lowest_rate_is_chosen_if_every_run_diverges(tmp_path: Path):
    function = Function(lambda *_: math.inf)
    trials, best = search_with(function, tmp_path / "journal", tuning_of(max_extension=10.0))
    assert trials[best].rate == min(trial.rate for trial in trials) == pytest.approx(0.001)
    assert not any(is_complete for *_, is_complete in function.calls_of_trainings)


@pytest.mark.parametrize("loss_beyond", [math.inf, 0.7])
def test_chosen_rate_rarely_fails_with_new_seeds(loss_beyond: float, tmp_path: Path):
    """A small version of benchmarks/search.py: each seed fails above a rate of its own, and faster is better."""
    shares = []
    for case in range(8):
        cliff = float(np.exp(np.random.default_rng(case).uniform(np.log(0.05), np.log(2))))

        def limit(seed: int, cliff: float = cliff, case: int = case) -> float:
            return cliff * math.exp(0.2 * np.random.default_rng([case, seed]).normal())

        def loss(rate: float, seed: int, cliff: float = cliff, limit: Callable = limit) -> float:
            return loss_beyond if rate > limit(seed) else valley(rate, best=2 * cliff) / 3

        tuning = tuning_of(startup_trials=4, finalists={"settings": 2}, hyperparameters={"learning_rate": (0.01, 3.0)})
        trials, best = search_with(Function(loss), tmp_path / f"{case}", tuning, replace(COST, trials=8))
        shares.append(np.mean([trials[best].rate > limit(seed) for seed in range(1000, 1200)]))
        assert trials[best].rate > cliff / 10  # which would be safe, too
    assert np.mean(shares) <= 0.02
