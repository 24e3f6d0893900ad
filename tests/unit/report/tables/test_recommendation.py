"""Recommendations for synthetic runs with known answers."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from batchscape.report.tables import best_lr, lr_grid
from batchscape.report.tables.recommendation import tabulate
from batchscape.study.registry import TABLES
from batchscape.study.study import Study
from tests.helpers.measures import METRICS
from tests.helpers.tables import DIVERGED, synthetic_runs


def recommend(runs: pd.DataFrame, tuned_lr: pd.DataFrame | None = None) -> pd.DataFrame:
    return tabulate(
        runs, best_lr.tabulate(lr_grid.tabulate(runs, metrics=METRICS)), tuned_lr, metrics=METRICS
    ).set_index("setting")


def test_cheapest_of_the_equivalent_settings_is_chosen():
    losses = {
        (32, 0.1): [0.10, 0.20, 0.30],
        (64, 0.1): [0.12, 0.19, 0.31],  # within the noise
        (64, 0.2): [0.11, 0.22, 0.28],  # also, and cheaper
        (128, 0.1): [0.20, 0.30, 0.40],  # each seed 0.1 worse
    }
    table = recommend(synthetic_runs(losses, {(32, 0.1): 9.0, (64, 0.1): 5.0, (64, 0.2): 3.0, (128, 0.1): 1.0}))
    assert table["choice"].to_dict() == {
        "bs32-lr0.1": "lowest loss",
        "bs64-lr0.2": "cheapest equivalent",
        "bs64-lr0.1": "equivalent",
        "bs128-lr0.1": "worse",
    }
    assert list(table["best_validation_loss_mean"]) == sorted(table["best_validation_loss_mean"])


def test_interval_is_the_paired_t_interval():
    table = recommend(synthetic_runs({(32, 0.1): [0.1, 0.2, 0.4, 0.2], (64, 0.1): [0.3, 0.3, 0.45, 0.25]}))
    differences = np.array([0.2, 0.1, 0.05, 0.05])
    low, high = stats.t.interval(0.95, 3, differences.mean(), stats.sem(differences))
    row = table.loc["bs64-lr0.1"]
    assert np.allclose([row["difference_to_best"], row["ci95_low"], row["ci95_high"]], [0.1, low, high], rtol=1e-9)
    assert table.loc["bs32-lr0.1", ["difference_to_best", "ci95_low", "ci95_high"]].tolist() == [0, 0, 0]


def test_twice_the_loss_is_not_equivalent_with_few_seeds():
    table = recommend(synthetic_runs({(32, 0.1): [0.20, 0.22], (64, 0.1): [0.40, 0.50]}, {(64, 0.1): 0.1}))
    assert table.loc["bs64-lr0.1", "ci95_low"] < 0 < table.loc["bs64-lr0.1", "ci95_high"]
    assert table["choice"].tolist() == ["lowest loss and cheapest equivalent", "unclear"]


def test_nothing_is_equivalent_with_two_seeds():
    """One of them may be so bad that all settings are within its spread, even those that have not learned."""
    table = recommend(synthetic_runs({(8, 0.1): [0.177, 0.70], (32, 0.1): [0.68, 0.69]}, {(8, 0.1): 9.0}))
    assert table.loc["bs32-lr0.1", "ci95_low"] < 0 < table.loc["bs32-lr0.1", "ci95_high"]
    assert table["choice"].tolist() == ["lowest loss and cheapest equivalent", "unclear"]


def test_setting_that_did_not_improve_is_not_equivalent():
    losses = {(8, 0.1): [0.1, 0.7, 0.4], (32, 0.1): [0.3, 0.6, 0.5], (32, 0.2): [0.35, 0.6, 0.5]}
    runs = synthetic_runs(losses, {(8, 0.1): 9.0, (32, 0.1): 1.0, (32, 0.2): 5.0})  # its best epoch is the first, too
    assert recommend(runs)["choice"].tolist() == ["lowest loss", "unclear", "cheapest equivalent"]
    assert recommend(runs.assign(best_epoch=0.1))["choice"].tolist() == [
        "lowest loss",
        "unclear",
        "cheapest equivalent",
    ]
    assert recommend(runs.assign(best_evaluation=1))["choice"].tolist() == [
        "lowest loss",
        "cheapest equivalent",
        "equivalent",
    ]


def test_setting_without_the_runs_of_all_seeds_is_no_candidate():
    """In a report of an unfinished study: by chance, the seeds that it has may be easy ones."""
    runs = synthetic_runs({(32, 0.1): [0.9], (64, 0.1): [0.85, 1.2, 1.3], (64, 0.2): [0.8, DIVERGED]})
    assert recommend(runs)["choice"].to_dict() == {
        "bs64-lr0.1": "lowest loss and cheapest equivalent",
        "bs32-lr0.1": "incomplete",
        "bs64-lr0.2": "diverged",
    }


def test_nothing_is_equivalent_with_one_seed():
    table = recommend(synthetic_runs({(32, 0.1): [0.2], (64, 0.1): [0.2001]}, {(64, 0.1): 0.1}))
    assert table["choice"].tolist() == ["lowest loss and cheapest equivalent", "unclear"]
    assert table[["ci95_low", "ci95_high"]].isna().all(axis=None)
    assert table.loc["bs64-lr0.1", "difference_to_best"] == pytest.approx(1e-4)


def test_cheaper_setting_wins_a_tie():
    table = recommend(synthetic_runs({(32, 0.1): [0.2, 0.3, 0.4], (64, 0.1): [0.2, 0.3, 0.4]}, {(64, 0.1): 0.1}))
    assert list(table.index) == ["bs64-lr0.1", "bs32-lr0.1"]
    assert table["choice"].tolist() == ["lowest loss and cheapest equivalent", "equivalent"]


def test_setting_with_a_diverged_seed_is_excluded():
    table = recommend(synthetic_runs({(32, 0.1): [0.01, DIVERGED, 0.02], (64, 0.1): [0.2, 0.3, 0.25]}))
    assert table["choice"].to_dict() == {"bs64-lr0.1": "lowest loss and cheapest equivalent", "bs32-lr0.1": "diverged"}
    assert np.isnan(table.loc["bs32-lr0.1", "difference_to_best"])
    assert table.loc["bs32-lr0.1", "n_diverged"] == 1


def test_nothing_is_chosen_if_every_setting_diverged():
    table = recommend(synthetic_runs({(32, 0.1): [DIVERGED], (64, 0.1): [DIVERGED, DIVERGED]}))
    assert set(table["choice"]) == {"diverged"}
    assert table[["difference_to_best", "ci95_low", "ci95_high"]].isna().all(axis=None)


@pytest.mark.parametrize(
    ("device", "expected"),
    [("cpu", ["lowest loss", "cheapest equivalent"]), ("A GPU", ["lowest loss and cheapest equivalent", "equivalent"])],
)
def test_cost_is_cpu_time_on_a_cpu_and_wall_time_otherwise(device: str, expected: list[str]):
    # The synthetic wall times have the reverse order.
    runs = synthetic_runs(
        {(32, 0.1): [0.2, 0.3, 0.4], (64, 0.1): [0.21, 0.3, 0.4]}, {(32, 0.1): 9, (64, 0.1): 3}, device
    )
    assert recommend(runs)["choice"].tolist() == expected


def test_best_rate_on_the_edge_is_reported():
    runs = synthetic_runs({(32, 0.1): [0.2, 0.3], (32, 0.2): [0.1, 0.2], (64, 0.1): [0.3, 0.4], (64, 0.2): [0.5, 0.5]})
    table = recommend(runs)
    assert table["edge"].to_dict() == {
        "bs32-lr0.2": "high",
        "bs32-lr0.1": "none",
        "bs64-lr0.1": "low",
        "bs64-lr0.2": "none",
    }
    assert table.loc["bs32-lr0.2", "advice"] == "add a learning rate above 0.2"


@pytest.mark.parametrize(("beyond", "edge"), [(0.4, "none"), (0.15, "high")])
def test_rate_with_a_tuned_rate_beyond_is_not_on_the_edge(beyond: float, edge: str):
    runs = synthetic_runs({(32, 0.1): [0.2, 0.3], (32, 0.2): [0.1, 0.2], (32, beyond): [0.3, 0.3]})
    runs.loc[runs["learning_rate"] == beyond, "setting"] = "bs32-lrtuned"
    assert recommend(runs).loc["bs32-lr0.2", "edge"] == edge


def test_tuned_setting_has_the_edge_of_its_search():
    runs = synthetic_runs({(32, 0.1): [0.2, 0.3], (32, 0.3): [0.1, 0.2]})
    runs.loc[runs["learning_rate"] == 0.3, "setting"] = "bs32-lrtuned"
    found = pd.DataFrame(
        {
            "batch_size": [32],
            "tuned_learning_rate": [0.3],
            "edge": ["high"],
            "advice": ["let tuning.hyperparameters.learning_rate end above 0.3"],
        }
    )
    table = recommend(runs, found)
    assert table["edge"].to_dict() == {"bs32-lrtuned": "high", "bs32-lr0.1": "both"}
    assert table.loc["bs32-lrtuned", "advice"] == "let tuning.hyperparameters.learning_rate end above 0.3"


def test_tuned_rates_are_a_source_if_the_search_is_enabled():
    with_search, without = (
        Study.from_mapping({"name": "x", "tuning": {"enabled": enabled}}, "x").plan.sources(TABLES["recommendation"])
        for enabled in (True, False)
    )
    assert with_search == ["tables/runs", "tables/best_lr", "tables/tuned_lr"]
    assert without == ["tables/runs", "tables/best_lr"]


def test_settings_with_other_seeds_are_not_ranked_by_their_means():
    """Batch size 64 is worse with each seed that both have; only its other seed is lower."""
    runs = synthetic_runs({(32, 0.1): [1.0, 1.1, 1.2], (64, 0.1): [9.9, 1.16, 1.27, 0.2], (128, 0.1): [1.5, 1.6, 1.7]})
    table = recommend(runs.drop(index=3))  # of batch size 64, the one with the first seed
    assert table["choice"].to_dict() == {
        "bs32-lr0.1": "lowest loss and cheapest equivalent",
        "bs128-lr0.1": "worse",
        "bs64-lr0.1": "incomplete",
    }
