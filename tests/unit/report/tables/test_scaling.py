"""Exponents of the best rate over the batch size, and the range of good rates, from made-up bowls."""

import runpy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from batchscape.report.resampling import Estimate
from batchscape.report.tables import scaling, tolerance
from tests.helpers.tables import synthetic_runs

COVERAGE = runpy.run_path(str(Path(__file__).parents[4] / "benchmarks" / "coverage.py"))
SIZES = (16, 32, 64, 128)
RATES = tuple(0.01 * 2.0**power for power in range(8))


def bowls(best: Callable[[int], float], seeds: int = 3, noise: float = 0.01, sizes: tuple[int, ...] = SIZES):
    """Return the table `runs` of bowls in log(rate) around the best rate of each batch size."""
    rng = np.random.default_rng(2)
    return synthetic_runs(
        {
            (size, rate): list(np.exp(0.3 * np.log(rate / best(size)) ** 2 + rng.normal(0, noise, seeds)))
            for size in sizes
            for rate in RATES
        }
    )


def row_of(runs: pd.DataFrame, trial_runs: pd.DataFrame | None = None, source: str = "grid") -> pd.Series:
    table = scaling.tabulate(runs, trial_runs).set_index("source")
    return table.loc[source]


@pytest.mark.parametrize(
    ("power", "verdict"), [(1.0, "linear"), (0.5, "square-root"), (0.0, "neither"), (0.75, "neither")]
)
def test_exponent_and_rule_of_exact_bowls_are_recovered(power: float, verdict: str):
    row = row_of(bowls(lambda size: 0.04 * (size / 16) ** power, noise=0.04))
    assert row["exponent"] == pytest.approx(power, abs=0.05)
    assert row["ci95_low"] < power < row["ci95_high"]
    assert row["ci95_high"] - row["ci95_low"] < 0.3
    assert (row["verdict"], row["reason"], row["n_on_edge"]) == (verdict, "none", 0)
    assert (row["n_batch_sizes"], row["smallest_batch_size"], row["largest_batch_size"]) == (4, 16, 128)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.6, 1.2, "linear"), (0.3, 0.9, "square-root"), (0.4, 1.1, "not determined"), (0.6, 0.9, "neither"),
        (-0.2, 0.3, "neither"), (-0.1, 0.9, "not determined"), (0.0, 0.6, "not determined"),
        (0.6, 1.5, "not determined"), (np.nan, np.nan, "not determined"), (-np.inf, np.inf, "not determined"),
    ],
)  # fmt: skip
def test_verdict_follows_from_the_interval(low: float, high: float, verdict: str):
    assert scaling.judge(Estimate(0.0, low, high)) == verdict


def test_noise_leaves_the_rule_undetermined_and_says_why():
    row = row_of(bowls(lambda size: 0.04 * (size / 16) ** 0.75, noise=0.3, seeds=2))
    assert (row["verdict"], row["reason"]) == ("not determined", "the interval contains both 1 and 0.5")


def test_one_seed_has_an_exponent_without_an_interval():
    row = row_of(bowls(lambda size: 0.04 * size / 16, seeds=1))
    assert row["exponent"] == pytest.approx(1, abs=0.05)
    assert np.isnan(row["ci95_low"])
    assert (row["verdict"], row["reason"]) == ("not determined", "one seed gives no interval")


def test_batch_sizes_whose_best_rate_is_on_an_edge_are_left_out():
    row = row_of(bowls(lambda size: 0.2 * size / 16))  # 1.28 is the highest rate
    assert (row["n_on_edge"], row["largest_batch_size"], row["verdict"]) == (1, 64, "linear")
    assert row["exponent"] == pytest.approx(1, abs=0.05)
    bound = row_of(bowls(lambda size: 2.0 * size / 16))
    assert (bound["n_batch_sizes"], bound["verdict"]) == (0, "not determined")
    assert bound["reason"] == "the best value of 4 of 4 batch sizes is on an edge of the tried values"


@pytest.mark.parametrize(
    ("best", "falls"),
    [
        (lambda size: {16: 0.05, 32: 0.1, 64: 0.2, 128: 0.1}[size], "yes"),
        (lambda size: 0.04 * size / 16, "no"),
        (lambda size: 0.64 * 16 / size, "no"),
    ],
)
def test_best_rate_that_rises_and_falls_again_is_reported(best: Callable[[int], float], falls: str):
    row = row_of(bowls(best))
    assert row["rises_and_falls"] == falls
    assert row["first_exponent"] == pytest.approx(np.log2(best(32) / best(16)), abs=0.05)
    assert row["last_exponent"] == pytest.approx(np.log2(best(128) / best(64)), abs=0.05)


def test_best_rate_of_two_batch_sizes_is_not_said_to_fall():
    assert row_of(bowls(lambda size: 0.04 * size / 16, sizes=(16, 32)))["rises_and_falls"] == "not determined"


def test_rate_that_diverged_in_a_seed_is_not_the_best():
    runs = bowls(lambda size: 0.04 * (size / 16) ** 0.5)
    runs.loc[(runs["learning_rate"] > 0.2) & (runs["seed"] == 1), ["status", "best_validation_loss"]] = ["diverged", 0]
    row = row_of(runs)
    assert (row["verdict"], row["n_on_edge"]) == ("square-root", 0)


def test_table_without_constant_rates_or_with_one_batch_size_says_so():
    one = bowls(lambda _: 0.1, sizes=(16,))
    tuned = one.assign(setting="bs16-lrtuned")
    for runs in (one, tuned):
        row = row_of(runs)
        assert np.isnan(row["exponent"])
        assert row["reason"] == "there are no two batch sizes to compare"
    assert tolerance.tabulate(tuned, margin=0.05).empty


# The trials of a search.


def trials(more: Callable[[int, float], dict[str, float]] = lambda *_: {}) -> pd.DataFrame:
    """Return the trials of a search at other rates than the grid, whose best rate grows with the batch size."""
    rng = np.random.default_rng(1)
    rows = []
    for size in SIZES:
        for trial, rate in enumerate(0.03 * (size / 16) * np.exp(rng.uniform(-2, 2, 16))):
            values = {"learning_rate": rate, **more(size, rng.uniform(0.25, 4))}
            distance = np.log(rate / (0.03 * size / 16)) ** 2
            if "beta2" in values:
                distance += np.log((1 - values["beta2"]) / (0.001 * size / 16)) ** 2
            lead = {"batch_size": size, "trial": trial, "stage": "search", "status": "completed", **values}
            rows += [
                {**lead, "seed": seed, "validation_loss": np.exp(0.3 * distance + rng.normal(0, 0.005))}
                for seed in (7, 8, 9)
            ]
    return pd.DataFrame(rows)


def test_exponent_of_the_search_is_that_of_its_trials():
    row = row_of(bowls(lambda _: 0.1), trials(), source="search")
    assert row["exponent"] == pytest.approx(1, abs=0.05)
    assert (row["hyperparameter"], row["verdict"], row["n_seeds"]) == ("learning_rate", "linear", 3)


def test_pruned_trials_and_finalists_are_left_out_and_diverged_ones_are_not_the_best():
    frame = trials()
    expected = row_of(bowls(lambda _: 0.1), frame, source="search")
    extra = frame[frame["trial"] == 0].assign(validation_loss=1e-9, learning_rate=1e-9, trial=99)
    pruned = extra.assign(status=["pruned", "completed", "completed"] * len(SIZES))
    finalists = extra.assign(stage="finalist", trial=100)
    diverged = extra.assign(status="diverged", validation_loss=np.inf, trial=101, learning_rate=9.9)
    found = row_of(bowls(lambda _: 0.1), pd.concat([frame, pruned, finalists, diverged]), source="search")
    pd.testing.assert_series_equal(found, expected)


def test_each_hyperparameter_of_a_search_has_its_exponent():
    frame = trials(lambda size, factor: {"beta2": 1 - 0.001 * size / 16 * factor})
    table = scaling.tabulate(bowls(lambda _: 0.1), frame).set_index(["source", "hyperparameter"])
    assert list(table.index) == [("grid", "learning_rate"), ("search", "learning_rate"), ("search", "beta2")]
    for name in ("learning_rate", "beta2"):
        row = table.loc[("search", name)]
        size = SIZES[0]
        rows = frame[frame["batch_size"].isin([size, SIZES[1]])]
        best = rows.groupby(["batch_size", "trial"])["validation_loss"].mean().groupby("batch_size").idxmin()
        values = frame.groupby(["batch_size", "trial"])[name].first()[best].to_numpy()
        low, high = 1 - values if name == "beta2" else values
        assert row["first_exponent"] == pytest.approx(np.log2(high / low))


# Tolerance.


def test_width_of_a_bowl_is_that_of_its_formula():
    table = tolerance.tabulate(bowls(lambda size: 0.08 * (size / 16) ** 0.5, noise=0), margin=0.5).set_index(
        "batch_size"
    )
    half = np.sqrt(np.log(1.5) / 0.3)  # of the bowl; interpolated between rates a factor of 2 apart
    assert np.log(table["width"]).to_numpy() == pytest.approx([2 * half] * 4, rel=0.1)
    assert table.loc[16, "best_learning_rate"] == 0.08
    ratio = table["highest_learning_rate"] / table["lowest_learning_rate"]
    assert ratio.tolist() == pytest.approx(table["width"].tolist())
    assert set(table["low_end"]) == set(table["high_end"]) == {"inside"}
    assert (table["n_rates"].tolist(), table["n_seeds"].tolist()) == ([8] * 4, [3] * 4)


def test_width_has_an_interval_over_seeds_without_an_upper_end_where_it_is_cut():
    table = tolerance.tabulate(bowls(lambda size: 0.02 * size / 16), margin=0.5).set_index("batch_size")
    assert (table["ci95_low"] <= table["width"]).all()
    assert (table["ci95_low"] >= 1).all()
    assert table["low_end"].tolist() == ["edge", "inside", "inside", "inside"]
    assert np.isinf(table["ci95_high"]).tolist() == [True, False, False, False]
    assert (table["width"] < table["ci95_high"]).all()
    one_seed = tolerance.tabulate(bowls(lambda size: 0.02 * size / 16, seeds=1), margin=0.5)
    assert one_seed[["ci95_low", "ci95_high"]].isna().all(axis=None)


# Simulated studies; `benchmarks/coverage.py` has more of them.


@pytest.mark.parametrize(
    ("name", "case"),
    [("covers_exponent", {"noise": 0.2}), ("covers_critical_batch", {"noise": 0.15}), ("covers_ratio", {})],
)
def test_intervals_contain_the_true_value_in_95_percent_of_studies(name: str, case: dict[str, float]):
    hits = list(COVERAGE[name](3, 150, np.random.default_rng(0), **case))
    # The interval of the share of hits contains 93 to 97 %.
    low, high = binomtest(sum(hits), len(hits)).proportion_ci(0.99)
    assert low < 0.97
    assert high > 0.93
