"""The table of the finalists, for synthetic runs with known answers."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from batchscape.report.tables.confirmation import tabulate
from tests.helpers.measures import METRICS
from tests.helpers.tables import DIVERGED, synthetic_runs


def confirm(losses: dict, seconds: dict | None = None, diverged_in_grid: str = "") -> pd.DataFrame:
    runs = synthetic_runs(losses, seconds)
    runs = runs.assign(
        diverged_in_grid=runs["setting"].eq(diverged_in_grid).astype(int),
        test_loss=runs["best_validation_loss"] + 1,
        test_accuracy=0.5,
    )
    return tabulate(runs, metrics=METRICS).set_index("setting")


def test_lowest_loss_with_the_fresh_seeds_is_chosen():
    table = confirm({(32, 0.1): [0.5, 0.6, 0.7], (64, 0.1): [0.1, 0.2, 0.3], (128, 0.1): [0.15, 0.35, 0.25]})
    assert table["choice"].to_dict() == {
        "bs64-lr0.1": "chosen",
        "bs128-lr0.1": "not distinguishable",
        "bs32-lr0.1": "worse",
    }
    differences = np.array([0.05, 0.15, -0.05])
    low, high = stats.t.interval(0.95, 2, differences.mean(), stats.sem(differences))
    row = table.loc["bs128-lr0.1"]
    assert row[["difference_to_chosen", "ci95_low", "ci95_high"]].tolist() == pytest.approx([0.05, low, high])


def test_intervals_of_losses_are_t_intervals_over_seeds():
    table = confirm({(32, 0.1): [0.1, 0.2, 0.4]})
    low, high = stats.t.interval(0.95, 2, 0.7 / 3, stats.sem([0.1, 0.2, 0.4]))
    columns = [f"{side}_loss_ci95_{end}" for side in ("best_validation", "test") for end in ("low", "high")]
    assert table[columns].iloc[0].tolist() == pytest.approx([low, high, 1 + low, 1 + high])


def test_cheapest_equivalent_finalist_is_chosen_and_differences_are_to_it():
    table = confirm({(32, 0.1): [0.10, 0.20, 0.30], (64, 0.1): [0.11, 0.22, 0.28]}, {(32, 0.1): 9.0, (64, 0.1): 3.0})
    assert table["choice"].to_dict() == {"bs64-lr0.1": "chosen", "bs32-lr0.1": "not distinguishable"}
    assert table["difference_to_chosen"].tolist() == pytest.approx([0, -0.01 / 3])


def test_one_seed_distinguishes_nothing():
    table = confirm({(32, 0.1): [0.1], (64, 0.1): [0.9]})
    assert table["choice"].tolist() == ["chosen", "not distinguishable"]
    assert table[["ci95_low", "ci95_high", "test_loss_ci95_low"]].isna().all(axis=None)


def test_setting_that_diverged_in_the_grid_or_here_is_not_chosen():
    losses = {(32, 0.1): [0.1, DIVERGED], (64, 0.1): [0.5, 0.6], (128, 0.1): [0.2, 0.3]}
    table = confirm(losses, diverged_in_grid="bs128-lr0.1")
    assert table["choice"].to_dict() == {"bs64-lr0.1": "chosen", "bs128-lr0.1": "diverged", "bs32-lr0.1": "diverged"}
    everything = confirm({(32, 0.1): [DIVERGED], (64, 0.1): [DIVERGED]})
    assert set(everything["choice"]) == {"diverged"}


def test_finalist_whose_seeds_are_not_complete_did_not_diverge():
    runs = synthetic_runs({(32, 0.1): [0.5, 0.6, 0.7], (64, 0.1): [0.1, 0.2], (128, 0.1): [0.3, DIVERGED, 0.4]})
    runs = runs.assign(diverged_in_grid=0)
    table = tabulate(runs, metrics=METRICS).set_index("setting")
    assert table["choice"].to_dict() == {
        "bs32-lr0.1": "chosen",
        "bs64-lr0.1": "incomplete",
        "bs128-lr0.1": "diverged",
    }
