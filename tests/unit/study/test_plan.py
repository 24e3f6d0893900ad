"""The trainings of a study."""

from collections.abc import Callable

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
    assert branched.plan.runs_by_part("branching")["branches/bs32-lr0.01-seed2/at9steps-x4"] == ["bs32-lr0.01-seed2"]
    assert less.plan.describe_trainings() == f"{len(less.runs)} trainings: {len(less.runs)} runs"
