"""The rules of a search on made-up trials."""

import math

import numpy as np
import pytest

from batchscape.tuning.rules import (
    COMPLETED,
    EXTENSION,
    GRID,
    PRUNED,
    SEARCH,
    Outcome,
    Proposal,
    Trial,
    choose,
    choose_finalists,
    excess_losses,
    has_failed,
    has_margin,
    is_tried,
    next_setting,
    objective,
    rank,
    robust_losses,
)
from batchscape.tuning.space import Space, grid, to_hyperparameters

INITIAL_LOSS = 0.7
RATES = Space.of({"learning_rate": (0.01, 1.0)}, max_extension=10, num_points=3)


def trials_of(
    losses: dict[float, float | list[float]], status: str = COMPLETED, initial_loss: float = INITIAL_LOSS
) -> list[Trial]:
    """Return trials by learning rate, each with the losses of its seeds."""
    return [
        Trial(
            number,
            GRID,
            {"learning_rate": rate},
            {
                seed: Outcome(loss, status, initial_loss, 1.0, 100)
                for seed, loss in enumerate(values if isinstance(values, list) else [values])
            },
        )
        for number, (rate, values) in enumerate(losses.items())
    ]


def test_objective_is_a_quantile_over_seeds_or_their_mean_and_infinite_if_one_diverged():
    assert objective([0.1, 0.5, 0.2], 0.9) == pytest.approx(0.44)
    assert objective([0.1, 0.5, 0.3], None) == pytest.approx(0.3)
    assert objective([0.7], 0.9) == 0.7
    assert objective([0.1, math.inf], 0.9) == objective([math.inf, math.inf], None) == math.inf


def test_rate_close_below_one_at_which_training_fails_is_no_better_than_that():
    trials = trials_of({0.1: 0.4, 0.2: 0.2, 0.4: 0.3, 0.41: math.inf, 0.8: 0.9})
    assert has_failed(trials).tolist() == [False, False, False, True, True]  # above (0.2 + 0.7)/2 = 0.45
    assert robust_losses(trials, 0.9, 2.0).tolist() == [0.4, 0.2, math.inf, math.inf, 0.9]
    assert robust_losses(trials, 0.9, 1.0).tolist() == [0.4, 0.2, 0.3, math.inf, 0.9]
    assert excess_losses(trials, 0.9, 2.0)[:3] == pytest.approx([0, 0, math.inf])
    one_of_two = trials_of({0.01: 0.7, 0.1: 0.2, 0.15: [0.2, 0.5]})
    assert robust_losses(one_of_two, None, 2.0).tolist() == [0.7, 0.35, 0.35]


def test_training_that_only_learned_the_frequencies_of_the_targets_failed():
    # Of a language model: 5.5 before training, 3.3 for the frequencies of bytes, which high rates do not get beyond.
    trials = trials_of({0.01: 3.0, 0.1: 1.95, 0.15: 2.1, 0.3: 3.3}, initial_loss=5.5)
    assert has_failed(trials).tolist() == [True, False, False, True]
    assert robust_losses(trials, None, 2.0).tolist() == [3.0, 1.95, 3.3, 3.3]


def test_loss_that_rises_smoothly_above_a_rate_does_not_count_against_it():
    trials = trials_of({0.02: 0.7, 0.1: 0.3, 0.2: 0.2, 0.3: 0.44})
    assert rank(trials, None, 1.5) == [2, 1, 3, 0]
    assert excess_losses(trials, None, 1.5).tolist() == [0, 0, 0, 0]


def test_failure_depends_on_the_scale_of_the_loss_only_relative_to_the_loss_before_training():
    losses = np.array([0.2, 0.44, 0.46, 0.8])
    for scale, offset in ((1, 0), (100, 0), (1, 5), (0.01, -3)):
        initial = scale * INITIAL_LOSS + offset
        trials = [
            Trial(number, GRID, {"learning_rate": 0.1 + number}, {0: Outcome(loss, COMPLETED, initial)})
            for number, loss in enumerate(scale * losses + offset)
        ]
        assert has_failed(trials).tolist() == [False, False, True, True]


def test_margin_is_known_from_the_rate_itself_or_from_a_better_one_above():
    trials = trials_of({0.1: 0.5, 0.2: 0.2, 0.35: 0.9, 1.0: 0.25})
    assert [has_margin(trials, index, 0.9, 2.0) for index in range(4)] == [True, False, True, False]
    assert all(has_margin(trials, index, 0.9, 1.0) for index in range(4))


def test_only_settings_with_equal_other_hyperparameters_are_compared():
    points = [{"learning_rate": rate, "1 - momentum": other} for rate, other in ((0.1, 0.1), (0.15, 0.1), (0.15, 0.2))]
    trials = [
        Trial(number, GRID, point, {0: Outcome(loss, COMPLETED, INITIAL_LOSS)})
        for number, (point, loss) in enumerate(zip(points, (0.1, 0.6, math.inf), strict=True))
    ]
    assert robust_losses(trials, 0.9, 2.0).tolist() == [0.6, 0.6, math.inf]


def test_best_setting_at_an_end_is_followed_by_the_next_one_beyond_up_to_the_limit():
    best_high = {0.01: 0.5, 0.1: 0.3, 1.0: 0.2}
    rate = next_setting(trials_of(best_high), RATES, 0.9, 2.0).point["learning_rate"]
    assert rate == 10.0  # the spacing of the grid is 10, and so is the limit
    fine = Space.of({"learning_rate": (0.01, 1.0)}, max_extension=5, num_points=5)
    tried, found = dict(best_high), []
    for _ in range(9):
        proposal = next_setting(trials_of(tried), fine, 0.9, 1.0)
        if proposal is None:
            break
        assert proposal.stage == EXTENSION
        assert proposal.is_prunable
        found.append(proposal.point["learning_rate"])
        tried[found[-1]] = 0.1 / found[-1]
    assert found == pytest.approx([10**0.5, 5.0])
    low = next_setting(trials_of({0.01: 0.1, 0.1: 0.3, 1.0: 0.2}), fine, 0.9, 2.0)
    assert low.point["learning_rate"] == pytest.approx(0.01 / 10**0.5)
    closed = Space.of({"learning_rate": (0.01, 1.0)}, max_extension=1, num_points=3)
    assert next_setting(trials_of(best_high), closed, 0.9, 1.0) is None


def test_range_of_a_hyperparameter_that_had_a_single_value_is_not_extended():
    space = Space.of({"learning_rate": (0.01, 1.0), "weight_decay": (0.1, 1.0)}, max_extension=10, num_points=3)
    losses = {0.01: 0.5, 0.1: 0.2, 0.15: 0.3, 1.0: 0.7}
    trials = [
        Trial(number, GRID, {"learning_rate": rate, "weight_decay": 0.1}, {0: Outcome(loss, COMPLETED)})
        for number, (rate, loss) in enumerate(losses.items())
    ]
    assert next_setting(trials, space, 0.9, 1.5) is None
    other = Trial(4, SEARCH, {"learning_rate": 0.1, "weight_decay": 0.3}, {0: Outcome(0.6, COMPLETED)})
    beyond = next_setting([*trials, other], space, 0.9, 1.5)
    assert beyond.stage == EXTENSION
    assert beyond.point == {"learning_rate": 0.1, "weight_decay": pytest.approx(0.1 / 10**0.5)}


def test_best_setting_is_tried_at_the_margin_and_never_pruned_there():
    trials = trials_of({0.01: 0.5, 0.1: 0.2, 1.0: 0.7})
    assert next_setting(trials, RATES, 0.9, 1.5) == Proposal(SEARCH, {"learning_rate": 0.1 * 1.5}, is_prunable=False)
    trials += trials_of({0.15: 0.25})
    assert next_setting(trials, RATES, 0.9, 1.5) is None
    # The margin may be beyond the limit, where no setting is chosen.
    narrow = Space.of({"learning_rate": (0.01, 1.0)}, max_extension=1, num_points=3)
    at_limit = trials_of({0.01: 0.5, 0.1: 0.3, 1.0: 0.2})
    assert next_setting(at_limit, narrow, 0.9, 1.5).point == {"learning_rate": 1.5}
    beyond = at_limit + trials_of({1.5: 0.01})
    assert [beyond[index].rate for index in choose_finalists(beyond, 2, narrow, 0.9, 1.5)] == [1.0, 0.1]


def test_finalists_are_the_best_of_known_margin_and_never_pruned_or_infinite_ones():
    trials = trials_of({0.01: 0.5, 0.1: 0.2, 0.15: 0.25, 0.5: 0.1, 0.75: math.inf, 1.0: math.inf})
    trials += trials_of({0.02: 0.01}, PRUNED)
    assert [trials[index].rate for index in choose_finalists(trials, 3, RATES, 0.9, 1.5)] == [0.1, 0.15, 0.01]
    unknown = trials_of({0.1: 0.2, 0.5: 0.3})
    assert choose_finalists(unknown, 3, RATES, 0.9, 1.5) == [0, 1]
    assert choose_finalists(trials_of({0.1: math.inf}), 3, RATES, 0.9, 1.5) == []
    assert rank(trials, 0.9, 1.5)[0] == 1


def test_lowest_rate_within_one_standard_error_of_the_best_is_chosen():
    # The standard error of the best is 0.03/√3 = 0.0173.
    losses = {0.4: [0.10, 0.13, 0.16], 0.2: [0.146] * 3, 0.1: [0.149] * 3}
    assert choose(trials_of(losses), None, np.zeros(3)) == 1
    assert choose(trials_of(losses), None, np.array([0, 0.01, 0])) == 0
    assert choose(trials_of(losses), None, np.array([math.inf, 0, 0])) == 1
    lost = trials_of({0.4: [math.inf], 0.1: [math.inf]})
    assert choose(lost, 0.9, np.full(2, math.nan)) == 1


def test_setting_within_a_percent_of_another_is_tried():
    trials = trials_of({0.1: 0.5})
    assert is_tried({"learning_rate": 0.1005}, trials)
    assert not is_tried({"learning_rate": 0.102}, trials)


def test_decay_rates_are_searched_by_their_distance_to_one():
    ranges = {"learning_rate": (0.01, 1.0), "beta2": (0.9, 0.999), "momentum": (0.5, 0.9), "warmup": (0.2, 0.5)}
    space = Space.of(ranges, max_extension=10, num_points=4)
    assert (space.low["1 - beta2"], space.high["1 - beta2"]) == (0.001, 0.1)
    assert (space.upper_limits["1 - momentum"], space.upper_limits["warmup"]) == (0.999, 1.0)
    points = grid(space, {"beta2": 0.99, "momentum": 0.0}, 4)
    assert [point["learning_rate"] for point in points] == pytest.approx([0.01, 0.0464159, 0.215443, 1.0], rel=1e-5)
    values = to_hyperparameters(points[0])
    # The momentum of the study is outside the range, and its warm-up has no fraction.
    assert values == pytest.approx(
        {"learning_rate": 0.01, "beta2": 0.99, "momentum": 1 - 0.05**0.5, "warmup": 0.1**0.5}, rel=1e-5
    )
