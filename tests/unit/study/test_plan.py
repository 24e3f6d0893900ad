"""The trainings of a study."""

from collections.abc import Callable

import pytest

from batchscape.config.budget import Budget
from batchscape.study.plan import TrainingGroup

# How much there is to train.

EPOCH = Budget(epochs=1)


def test_trainings_of_searches_and_timing_are_counted(study: Callable):
    planned = study(
        "name: s\n"
        "grid: {batch_sizes: [16, 32], learning_rates: [0.01, 0.08], seeds: [0, 1, 2]}\n"
        "training: {budget: {epochs: 30}}\n"
        "arms: {linear: {enabled: false}, sqrt: {enabled: false}}\n"
        "comparison: {fixed_learning_rate: 0.01, high_learning_rate: 0.08}\n"
        "tuning: {budget: 17, startup_trials: 3, trial_budget: {epochs: 15}, seeds: [7, 8], "
        "finalists: {settings: 4, seeds: [20, 21, 22]}}\n"
        "device_timing: {device_counts: [1, 2, 4], epochs: 6}\n"
        "confirmation: {settings: 2, seeds: 3}\n"
    )
    # Of each batch size two rates and the tuned one, by three seeds.
    assert planned.plan.trainings == [
        *(TrainingGroup("run", size, 9, Budget(epochs=30), EPOCH) for size in (16, 32)),
        TrainingGroup("confirmation", 16, 6, Budget(epochs=30), EPOCH),
        # Of 17 trainings the finalists take 12, and each of the 5 others is two runs of half the length.
        *(TrainingGroup("search", size, 10, Budget(epochs=15), EPOCH) for size in (16, 32)),
        *(TrainingGroup("finalist", size, 12, Budget(epochs=30), EPOCH) for size in (16, 32)),
        *(TrainingGroup("timing", size, 3, Budget(epochs=7), EPOCH) for size in (16, 32)),
    ]
    assert len(planned.runs) == 18
    assert planned.plan.describe_trainings() == (
        "74 trainings: 18 runs, 6 to confirm 2 settings with 3 other seeds, up to 44 in 2 searches of 5 trials × 2 "
        "seeds and 4 finalists × 3 seeds, or more that end early, 6 of a few epochs to time devices"
    )
    less = study(
        "name: s\ngrid: {batch_sizes: [16]}\ntuning: {enabled: false}\ndevice_timing: {enabled: false}\n"
        "confirmation: {enabled: false}\n"
    )
    branched = study(
        "name: s\nbranching: {enabled: true, points: [{steps: 9}, {epochs: 2}], factors: [4], seeds: [1, 2]}"
    )
    # Of two runs of batch size 32, at two points each, one with its own and one with four times the batch size.
    assert [each for each in branched.plan.trainings if each.part == "branch"] == [
        TrainingGroup("branch", 32, 4, EPOCH, EPOCH, 8),
        TrainingGroup("branch", 128, 4, EPOCH, EPOCH, 8),
    ]
    assert branched.plan.describe_trainings().endswith(", 8 branches of 1 epoch")
    assert branched.plan.runs_by_part("branching")["branches/bs32-lr0.01-seed2/at9steps"] == ["bs32-lr0.01-seed2"]
    assert less.plan.describe_trainings() == f"{len(less.runs)} trainings: {len(less.runs)} runs"


@pytest.mark.parametrize(
    ("training", "branching", "num_examples", "cost", "line"),
    [
        # The example of usage.md: at four points five branches each, of 3 of the 40 epochs.
        (
            "budget: {epochs: 40}",
            "points: [{epochs: 1}, {epochs: 4}, {epochs: 12}, {epochs: 24}], factors: [2, 4, 8, 16], "
            "length: {epochs: 3}, seeds: [0, 1]",
            None,
            4 * 5 * 3 / 40,
            "branching: 20 branches of 3 epochs for each of 2 runs, together as long as 1.5 runs",
        ),
        (
            "budget: {examples: 9000}",
            "points: [{steps: 9}], factors: [2], length: {epochs: 1}, seeds: [0]",
            1000,
            2 * 1000 / 9000,
            "branching: 2 branches of 1 epoch for 1 run, together as long as 0.222 runs",
        ),
        # Batches of 32 of 1000 examples: 32 steps an epoch.
        ("budget: {steps: 64}", "points: [{steps: 9}], factors: [2], seeds: [0]", 1000, 2 / 2, "as long as 1 runs"),
        (
            "budget: {steps: 64}",
            "points: [{steps: 9}], factors: [2], seeds: [0]",
            None,
            None,
            "branching: 2 branches of 1 epoch for 1 run, together of a length that is known once the data is prepared",
        ),
    ],
)
def test_cost_of_branches_in_runs(
    study: Callable, training: str, branching: str, num_examples: int | None, cost: float | None, line: str
):
    planned = study(f"name: s\ntraining: {{{training}, patience: null}}\nbranching: {{enabled: true, {branching}}}\n")
    found = planned.plan.branching_cost(num_examples)
    assert found is None if cost is None else found == pytest.approx(cost)
    (described,) = planned.plan.describe_branching(num_examples)
    assert described.endswith(line)
    # What `check` estimates the time from has the same length.
    if cost is not None:
        trainings = [each for each in planned.plan.trainings if each.part == "branch"]
        length = sum(each.count * each.budget.in_epochs(each.batch_size, num_examples or 1000) for each in trainings)
        budget = planned.training.budget.in_epochs(32, num_examples or 1000)
        assert length / len(planned.plan.branched_runs) / budget == pytest.approx(cost)


def test_cost_of_branches_is_not_described_without_them(study: Callable):
    assert study("name: s").plan.describe_branching() == []
