"""The best learning rate between the tried ones, and the range of good ones."""

import numpy as np
import pytest

from batchscape.report.optimum import find_optimum, find_tolerated_range, mean_over_seeds

LOG2 = np.log(2)
POSITIONS = LOG2 * np.arange(-4, 5)


@pytest.mark.parametrize("best", [-0.4, 0.0, 0.3, 0.49])
def test_vertex_of_a_bowl_is_found_between_the_tried_rates(best: float):
    losses = np.exp(0.2 * (POSITIONS - best) ** 2)
    assert find_optimum(POSITIONS, losses) == (pytest.approx(best), True)


def test_losses_that_are_not_positive_are_fitted_as_they_are():
    losses = (POSITIONS - 0.3) ** 2 - 1
    assert find_optimum(POSITIONS, losses) == (pytest.approx(0.3), True)


def test_collapsed_and_diverged_runs_do_not_move_the_vertex_beyond_the_neighbors():
    losses = np.exp(0.2 * (POSITIONS - 0.3) ** 2)
    losses[6:] = [30, 40, np.inf]  # beyond twice the best rate
    assert find_optimum(POSITIONS, losses) == (pytest.approx(0.3), True)


def test_coarse_rates_are_fitted_by_the_best_and_its_neighbors():
    positions = 10 * POSITIONS
    losses = np.exp(0.2 * (positions - 1) ** 2)
    assert find_optimum(positions, losses) == (pytest.approx(1), True)


@pytest.mark.parametrize(
    ("losses", "best"),
    [
        ([1, 2, 3], 0), ([3, 2, 1], 2), ([1], 0), ([np.nan, 1, 2, np.nan], 1),
        ([3, 1, np.inf], 1),  # between its neighbors, but with too few losses to say where
    ],
)  # fmt: skip
def test_best_rate_on_an_edge_is_not_inside(losses: list[float], best: int):
    assert find_optimum(POSITIONS[: len(losses)], np.array(losses, float)) == (POSITIONS[best], False)


def test_no_rate_is_best_if_all_diverged():
    position, is_inside = find_optimum(POSITIONS[:2], np.array([np.inf, np.inf]))
    assert np.isnan(position)
    assert not is_inside
    assert np.isnan(find_tolerated_range(POSITIONS[:2], np.array([np.inf, np.inf]), 0.05)[:2]).all()


def test_mean_excludes_runs_that_do_not_exist_and_not_those_that_diverged():
    losses = np.array([[1, 2, np.nan, 4], [3, np.inf, np.nan, np.nan]])
    np.testing.assert_array_equal(mean_over_seeds(losses), [2, np.inf, np.nan, 4])


def test_ends_of_the_range_are_interpolated_in_logarithms():
    losses = np.exp([0.3, 0.04, 0.0, 0.01, 0.09])
    found = find_tolerated_range(POSITIONS[:5], losses, np.expm1(0.05))
    low = POSITIONS[1] - LOG2 * (0.05 - 0.04) / (0.3 - 0.04)
    high = POSITIONS[3] + LOG2 * (0.05 - 0.01) / (0.09 - 0.01)
    assert found == (pytest.approx(low), pytest.approx(high), "inside", "inside")


def test_range_ends_at_the_first_loss_above_the_margin_on_each_side():
    losses = np.array([1.0, 2.0, 1.0, 0.99, 1.0, 2.0, 1.0])
    low, high, *_ = find_tolerated_range(POSITIONS[:7], losses, 0.05)
    assert POSITIONS[1] < low < POSITIONS[2]
    assert POSITIONS[4] < high < POSITIONS[5]


@pytest.mark.parametrize(
    ("losses", "ends"),
    [
        ([1.0, 1.01, 2.0], ("edge", "inside")), ([2.0, 1.0, np.inf], ("inside", "diverged")),
        ([np.inf, 1.0, 1.0], ("diverged", "edge")), ([1.0], ("edge", "edge")),
    ],
)  # fmt: skip
def test_cut_ends_are_the_last_rate_within_the_margin(losses: list[float], ends: tuple[str, str]):
    found = find_tolerated_range(POSITIONS[: len(losses)], np.array(losses), 0.05)
    assert (found.low_end, found.high_end) == ends
    within = [place for place, loss in zip(POSITIONS, losses, strict=False) if loss < 1.05]
    assert found.low_end == "inside" or found.low == within[0]
    assert found.high_end == "inside" or found.high == within[-1]


def test_relative_margin_of_a_negative_loss_has_no_meaning():
    assert np.isnan(find_tolerated_range(POSITIONS[:3], np.array([1.0, -0.5, 1.0]), 0.05).low)
