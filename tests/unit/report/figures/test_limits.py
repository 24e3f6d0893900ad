"""Axes that one failed seed does not flatten, and error bars that stay where values can be."""

import numpy as np
import pandas as pd
import pytest

from batchscape.report.figures.by_arm import plot_by_arm
from batchscape.report.figures.limits import choose_breaks, describe_beyond, error_bars, panel_limits, robust_limits

# Four settings of three seeds: 0.10 to 0.21.
LOSSES = [0.10, 0.11, 0.12, 0.13, 0.14, 0.15, 0.16, 0.17, 0.18, 0.19, 0.20, 0.21]
SETTINGS = [setting for setting in "abcd" for _ in range(3)]


def make_seeds(losses: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"panel": "loss", "setting": SETTINGS, "value": losses})


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        (LOSSES, (0.10, 0.21)),
        ([*LOSSES[:-1], 2.3], (0.10, 0.20)),  # one seed of d failed
        ([-9.0, *LOSSES[1:-1], 2.3], (0.11, 0.20)),  # below, too
        ([*LOSSES[:-3], 2.2, 2.3, 2.4], (0.10, 2.4)),  # d is bad with all of its seeds: a result
        ([*LOSSES[:-3], 0.19, 2.3, 2.4], (0.10, 2.4)),  # and with most of them
        ([*LOSSES[:-1], 0.34], (0.10, 0.34)),  # far, but within three interquartile ranges
        ([*LOSSES[:-1], 0.38], (0.10, 0.38)),  # beyond them, but the others still have a third of the axis
        ([5.0] * 11 + [20.0], (5.0, 20.0)),  # the middle half is equal, such as epochs at the end of a budget
    ],
)
def test_axis_leaves_out_a_failed_seed_but_no_bad_setting(losses: list[float], expected: tuple[float, float]):
    assert robust_limits(pd.Series(losses), pd.Series(SETTINGS)) == pytest.approx(expected)


def test_limits_of_a_panel_follow_from_its_own_seeds():
    panels = [make_seeds([*LOSSES[:-1], 2.3]), make_seeds([100 * loss for loss in LOSSES]).assign(panel="time")]
    limits = panel_limits(pd.concat(panels), ["setting"])  # whose rows have the same labels
    assert limits.loc["loss"].tolist() == pytest.approx([0.10, 0.20])
    assert limits.loc["time"].tolist() == pytest.approx([10, 21])
    shared = panel_limits(pd.concat(panels), ["setting"], shared=True)
    assert shared.loc["loss"].tolist() == shared.loc["time"].tolist() == pytest.approx([0.10, 21])


def test_bars_end_at_zero_and_at_the_edges_of_the_axis():
    seeds = make_seeds([*LOSSES[:-1], 2.3])
    limits = panel_limits(seeds, ["setting"])
    summary = pd.DataFrame({"panel": "loss", "mean": [0.11, 0.9], "sd": [0.005, 1.2]})
    bars = error_bars(summary, limits, seeds)
    assert bars["low"].tolist() == pytest.approx([0.105, 0.10])
    assert bars["high"].tolist() == pytest.approx([0.115, 0.20])
    assert describe_beyond(seeds, limits) == "Arrows: 1 seed above the axis"
    # Without a failed seed only the sign of the values limits a bar; of a single seed there is none.
    plain = make_seeds(LOSSES)
    wide = pd.DataFrame({"panel": "loss", "mean": [0.15, 0.2], "sd": [0.4, np.nan]})
    bars = error_bars(wide, panel_limits(plain, ["setting"]), plain)
    assert bars["low"].tolist() == pytest.approx([0.0, 0.2])
    assert bars["high"].tolist() == pytest.approx([0.55, 0.2])
    signed = plain.assign(value=plain["value"] - 0.12)
    assert error_bars(wide, panel_limits(signed, ["setting"]), signed)["low"].tolist() == pytest.approx([-0.25, 0.2])


def test_figure_of_arms_shows_a_failed_seed_as_an_arrow():
    runs = pd.DataFrame(
        {
            "arm": ["fixed"] * 6 + ["linear"] * 6, "batch_size": [32, 32, 32, 64, 64, 64] * 2, "quantity": "loss",
            "status": "converged", "value": [*LOSSES[:-1], 2.3],
        }
    )  # fmt: skip
    means = runs.groupby(["arm", "batch_size", "quantity"], as_index=False)["value"].agg(["mean", "std"])
    means = means.rename(columns={"mean": "value_mean", "std": "value_sd"})
    plot = plot_by_arm(runs, means, {"loss": "Loss"})
    assert plot.labels.caption == "Arrows: 1 seed above the axis"
    (axes,) = plot.draw().axes
    low, high = axes.get_ylim()
    assert 0 < low < 0.10
    assert 0.20 < high < 0.25


def test_ticks_are_integers_in_panels_of_integers_alone():
    """Such as those of best epochs: there is no half epoch."""
    seeds = pd.concat([make_seeds([5.0, 6.0] * 6).assign(panel="epoch"), make_seeds(LOSSES)])
    limits = panel_limits(seeds, ["setting"])
    means = pd.DataFrame({"panel": ["epoch", "loss"], "mean": [5.5, 0.15], "sd": [0.9, 0.1]})
    bars = error_bars(means, limits, seeds)
    breaks = choose_breaks(seeds, limits, bars)
    ends = bars.set_index("panel")[["low", "high"]]
    axis = {panel: (low - 0.05 * (high - low), high + 0.05 * (high - low)) for panel, low, high in ends.itertuples()}
    assert list(breaks(axis["epoch"])) == [5, 6]
    assert len(breaks(axis["loss"])) > 3
