"""Tables of synthetic runs with known answers."""

import numpy as np
import pandas as pd
import pytest

from batchscape.report.tables import (
    best_lr,
    branching,
    epoch_distance,
    fixed_lr,
    lr_grid,
    trials,
    tuned_lr,
    update_norms,
)
from batchscape.report.tables.over_seeds import over_seeds
from batchscape.study.study import Study
from tests.helpers.claims import OF_RUN
from tests.helpers.measures import METRICS
from tests.helpers.scenarios import SCENARIOS, TUNED_RATE, add_tables, load_scenario, make_analyses


@pytest.fixture(scope="module", params=SCENARIOS)
def scenario(request: pytest.FixtureRequest) -> tuple[Study, dict[str, pd.DataFrame]]:
    return load_scenario(request.param)


def test_tables_contain_every_setting(scenario):
    chosen, frames = scenario
    settings = {run.setting for run in chosen.runs.values()}
    for name in ("curves", "distance", "epoch_distance", "update_norms"):
        assert set(frames[f"tables/{name}"]["setting"]) == settings, name
    assert set(frames["tables/lr_grid"]["setting"]) == {
        setting for setting in settings if not setting.endswith(("tuned", "batchwarmup"))
    }
    assert set(frames["tables/best_lr"]["batch_size"]) == set(chosen.grid.batch_sizes)
    grid = frames["tables/lr_grid"]
    assert (grid["n_seeds"] + grid["n_diverged"] == len(chosen.grid.seeds)).all()


def test_curvature_is_a_mean_over_seeds_by_checkpoint():
    _, frames = load_scenario("plain")
    table = frames["tables/curvature"].set_index(["batch_size", "checkpoint"])
    assert len(table) == 2 * 4
    assert table.loc[(32, "last"), "eigenvalue_times_rate_mean"] == pytest.approx(0.5 + 6 / 4 + 0.1)
    assert table.loc[(32, "last"), "eigenvalue_times_rate_sd"] == pytest.approx(0.1)
    assert table.loc[(32, "epoch00001"), "batch_sharpness_mean"] == pytest.approx(12 * (0.5 + 1 / 4 + 0.1))
    assert np.isnan(table.loc[(32, "last"), "preconditioned_eigenvalue_mean"])


def test_critical_batch_size_is_the_largest_within_the_tolerance():
    """The excess of the loss of seeds 0, 1 and 2, with a tolerance of 1 %."""
    excess = {
        # Means of 0.5 and 0.9 % are within, one of 2 % is not, and what comes after does not count.
        "a": {2: [0.004, 0.005, 0.006], 4: [0.001, 0.009, 0.017], 8: [0.02, 0.02, 0.02], 16: [0, 0, 0]},
        # All are within with confidence: a bound.
        "b": {2: [0, 0, 0], 4: [-0.01, -0.011, -0.012], 8: [0, 0.001, 0.002], 16: [0.001, 0, -0.001]},
        # A diverged branch is not within.
        "c": {2: [0, np.nan, 0], 4: [0, 0, 0], 8: [0, 0, 0], 16: [0, 0, 0]},
    }
    rows = [
        {
            **{"run": f"r{seed}", "setting": "s", "batch_size": 32, "learning_rate": 0.1, "seed": seed, "point": point},
            **{"status": "converged", "examples": 100 * (1 + place), "epoch": 1.0, "factor": factor},
            "train_loss": -2 + 2 * value,
            "branch_status": "diverged" if np.isnan(value) else "completed",
        }
        for place, (point, factors) in enumerate(excess.items())
        for factor, values in {1: [0, 0, 0], **factors}.items()
        for seed, value in enumerate(values)
    ]
    table = branching.tabulate(pd.DataFrame(rows), branching_tolerance=0.01).set_index("point")
    # 0.9 ± 2.0 % contains the tolerance on both sides; 2 % has no spread.
    ends = ["critical_batch_ci95_low", "critical_batch", "critical_batch_ci95_high"]
    assert table.loc["a", ends].tolist() == [64, 128, 128]
    assert table.loc["b", ends].tolist() == [512, 512, 512]
    assert table.loc["c", ends].tolist() == [32, 32, 32]
    assert table["edge"].tolist() == ["none", "high", "low"]
    assert table["n_diverged"].tolist() == [0, 0, 1]
    assert table["n_seeds"].tolist() == [3, 3, 3]
    one = pd.DataFrame([row for row in rows if row["seed"] == 0])
    alone = branching.tabulate(one, branching_tolerance=0.01).set_index("point")
    assert alone["critical_batch"].tolist() == [128, 512, 512]
    assert alone[["critical_batch_ci95_low", "critical_batch_ci95_high"]].isna().all(axis=None)


def test_branches_of_a_run_that_ended_before_the_point_are_counted():
    _, frames = load_scenario("the fixed rate diverges")
    table = frames["tables/branching"]
    assert table["critical_batch"].isna().all()
    assert table["n_not_reached"].tolist() == [2, 2, 2]
    assert table["edge"].tolist() == ["none"] * 3


def test_branches_are_means_over_seeds():
    _, frames = load_scenario("plain")
    table = frames["tables/branches"].set_index(["point", "factor"])
    assert list(dict.fromkeys(table.index.get_level_values("point"))) == ["1epochs", "4epochs", "16epochs"]
    assert table.loc[("1epochs", 2), "excess_mean"] == pytest.approx(0.011)
    assert table.loc[("1epochs", 2), "excess_sd"] == pytest.approx(0.001)
    assert table.loc[("4epochs", 2), "train_loss_mean"] == pytest.approx(0.25)


def test_sharpness_and_alignment_tables_are_means_over_seeds():
    chosen, epochs, diverges = SCENARIOS["plain"]
    frames = add_tables(chosen, make_analyses(chosen, epochs, diverges))
    table = frames["tables/sharpness"].set_index(["setting", "measure", "radius"])
    assert table.loc[("bs64-lr0.01", "keskar", 5e-4), "value_mean"] == 64 * 2 * 0.5
    assert table.loc[("bs64-lr0.01", "keskar", 5e-4), "value_sd"] == 64 * 0.5
    assert len(table) == len(chosen.plan.arm_settings) * 4
    alignment = frames["tables/gradient_alignment"].set_index(["setting", "gradient_batch"])
    assert alignment.loc[("bs32-lr0.01", 4), "alignment_mean"] == 0.5


def rows(*values: tuple) -> pd.DataFrame:
    return pd.DataFrame(values, columns=["batch_size", "seed", "status", "x"])


def test_statistics_are_over_the_runs_that_did_not_diverge():
    frame = rows(
        (32, 0, "converged", 1.0), (32, 1, "budget_spent", 4.0), (32, 2, "diverged", 1e9), (64, 0, "converged", 5.0)
    )
    table = over_seeds(frame, ["batch_size"], ["x"]).set_index("batch_size")
    assert table.loc[32].to_dict() == {
        "x_mean": 2.5, "x_sd": pytest.approx(np.sqrt(4.5)), "x_min": 1.0, "x_max": 4.0, "n_seeds": 2, "n_diverged": 1,
    }  # fmt: skip
    assert table.loc[64, "n_seeds"] == 1
    assert np.isnan(table.loc[64, "x_sd"])


def test_setting_in_which_all_runs_diverged_has_a_row():
    table = over_seeds(rows((32, 0, "diverged", 3.0), (64, 0, "converged", 5.0)), ["batch_size"], ["x"])
    assert list(table["batch_size"]) == [32, 64]
    assert np.isnan(table.loc[0, "x_mean"])
    assert (table.loc[0, "n_seeds"], table.loc[0, "n_diverged"]) == (0, 1)


def grid(*values: tuple) -> pd.DataFrame:
    columns = ["batch_size", "learning_rate", "best_validation_loss_mean", "n_diverged"]
    return pd.DataFrame(values, columns=columns).assign(best_validation_loss_sd=0.1, n_seeds=3, n_budget_spent=0)


@pytest.mark.parametrize(
    ("table", "rate", "edge", "advice"),
    [
        (grid((32, 0.1, 3.0, 0), (32, 0.2, 1.0, 0), (32, 0.4, 2.0, 0)), 0.2, "none", "inside"),
        (grid((32, 0.1, 1.0, 0), (32, 0.2, 2.0, 0)), 0.1, "low", "below 0.1"),
        (grid((32, 0.1, 2.0, 0), (32, 0.2, 1.0, 0)), 0.2, "high", "above 0.2"),
        (grid((32, 0.1, 2.0, 0)), 0.1, "both", "below and above 0.1"),
        (grid((32, 0.1, 2.0, 0), (32, 0.2, 1.0, 1)), 0.1, "low", "below 0.1"),
        (grid((32, 0.1, 2.0, 0), (32, 0.2, 3.0, 0), (32, 0.4, 1.0, 1)), 0.1, "low", "below 0.1"),
        (grid((32, 0.1, 2.0, 0), (32, 0.2, 1.0, 0), (32, 0.4, 0.5, 1)), 0.2, "none", "0.4, diverged; add one between"),
        (grid((32, 0.1, 2.0, 0), (32, 0.2, 1.0, 0)).assign(n_budget_spent=2), 0.2, "high", "2 of its runs"),
        (grid((32, 0.1, np.nan, 3), (32, 0.2, np.nan, 3)), None, "low", "every learning rate diverged"),
    ],
)
def test_best_learning_rate_and_its_edge(table: pd.DataFrame, rate: float | None, edge: str, advice: str):
    best = best_lr.tabulate(table).iloc[0]
    assert np.isnan(best["best_learning_rate"]) if rate is None else best["best_learning_rate"] == rate
    assert best["edge"] == edge
    assert advice in best["advice"]


@pytest.mark.parametrize("rate", [0.01, 0.1])
def test_fixed_lr_equals_the_rows_of_the_grid_at_that_rate(rate: float):
    chosen, epochs, diverges = SCENARIOS["plain"]
    runs = make_analyses(chosen, epochs, diverges)["tables/runs"]
    grid, part = (
        lr_grid.tabulate(runs, metrics=METRICS),
        fixed_lr.tabulate(runs, fixed_learning_rate=rate, metrics=METRICS),
    )
    expected = grid[grid["learning_rate"] == rate].reset_index(drop=True)
    pd.testing.assert_frame_equal(part, expected)


def test_runs_stopped_by_max_epochs_are_counted():
    chosen, epochs, diverges = SCENARIOS["plain"]
    runs = make_analyses(chosen, epochs, diverges)["tables/runs"]
    runs.loc[(runs["batch_size"] == 64) & (runs["seed"] == 1), "status"] = "budget_spent"
    table = lr_grid.tabulate(runs, metrics=METRICS)
    assert table["n_budget_spent"].tolist() == (table["batch_size"] == 64).astype(int).tolist()


def test_arm_runs_are_the_runs_of_the_settings_of_the_arm():
    chosen, epochs, diverges = SCENARIOS["one diverged run"]  # linear: 64 at 0.02, sqrt: 64 at 0.0141421
    frames = add_tables(chosen, make_analyses(chosen, epochs, diverges))
    runs, table = frames["tables/arm_runs"], frames["tables/scaled_lr"]
    assert list(dict.fromkeys(table["arm"])) == ["fixed", "linear", "sqrt", "tuned", "high"]
    assert {arm: list(dict.fromkeys(rows["setting"])) for arm, rows in table.groupby("arm")} == {
        "fixed": ["bs32-lr0.01", "bs64-lr0.01"],
        "linear": ["bs32-lr0.01", "bs64-lr0.02"],
        "sqrt": ["bs32-lr0.01", "bs64-lr0.0141421"],
        "tuned": ["bs32-lrtuned", "bs64-lrtuned"],
        "high": ["bs32-lr0.1", "bs64-lr0.1"],
    }
    quantities = {*OF_RUN, "distance", "update_norm", "sharpness"} - {"epoch_seconds"}
    assert set(table["quantity"]) == quantities
    assert len(table) == 5 * 2 * len(quantities)
    cell = table.set_index(["arm", "batch_size", "quantity"]).loc
    assert cell[("linear", 64, "distance"), "value_mean"] == 1 / 64  # of all layers
    assert cell[("linear", 64, "update_norm"), "value_mean"] == 50 / 64
    assert cell[("linear", 64, "sharpness"), "value_mean"] == 64 * 1.5  # of the largest ε
    assert cell[("linear", 64, "sharpness"), "n_seeds"] == 2
    assert cell[("high", 32, "best_epoch"), ["n_seeds", "n_diverged"]].tolist() == [1, 1]
    source = frames["tables/runs"].set_index("run")["best_validation_loss"]
    found = runs[runs["quantity"] == "best_validation_loss"]
    names = found["setting"] + "-seed" + found["seed"].astype(str)
    assert np.array_equal(found["value"], source[names], equal_nan=True)


def test_tuned_rate_is_compared_with_scaling_rules_and_its_edge_is_reported():
    chosen, epochs, diverges = SCENARIOS["plain"]
    found = trials.tabulate(make_analyses(chosen, epochs, diverges)["tables/trial_runs"], quantile=0.9)
    found.loc[found["batch_size"] == 256, "is_best"] = [0, 0, 1]  # the best trial is at the upper end of the range
    table = tuned_lr.tabulate(found, small_batch_size=64, tuning_budget=9).set_index("batch_size")
    assert table["tuned_learning_rate"].tolist() == [TUNED_RATE, TUNED_RATE, 0.3]
    assert table["linear_learning_rate"].tolist() == [TUNED_RATE / 2, TUNED_RATE, 4 * TUNED_RATE]
    assert np.allclose(table["sqrt_learning_rate"], [TUNED_RATE / 2**0.5, TUNED_RATE, 2 * TUNED_RATE], rtol=1e-12)
    assert table["edge"].tolist() == ["none", "none", "high"]
    assert table.loc[256, "advice"] == "let tuning.hyperparameters.learning_rate end above 0.3"
    assert table["n_trials"].tolist() == [3, 3, 3]


@pytest.mark.parametrize(("place", "edge"), [(0.049, "low"), (0.051, "none"), (0.949, "none"), (0.951, "high")])
def test_tuned_rate_near_an_end_of_the_range_is_on_its_edge(place: float, edge: str):
    rate = 0.01 * (1.0 / 0.01) ** place
    found = pd.DataFrame({"trial": range(3), "learning_rate": [0.01, rate, 1.0], "is_best": [0, 1, 0]})
    found = found.assign(batch_size=8, stage="grid", validation_loss=1.0, n_pruned=0, trainings=0.1)
    assert tuned_lr.tabulate(found, small_batch_size=8, tuning_budget=9)["edge"].tolist() == [edge]


@pytest.mark.parametrize(("beyond", "edge"), [(0.9, "high"), (1.1, "none"), (np.inf, "none")])
def test_tuned_rate_is_a_bound_if_the_loss_still_falls_at_the_rate_tried_beyond(beyond: float, edge: str):
    """The rate beyond is `tuning.margin` times the highest one that can be chosen."""
    found = pd.DataFrame({"learning_rate": [0.1, 1.0, 3.0, 4.5, 3.0], "validation_loss": [1.4, 1.2, 1.0, beyond, 0.7]})
    found = found.assign(trial=range(5), is_best=[0, 0, 0, 0, 1], n_pruned=0, trainings=0.1, batch_size=8)
    found["stage"] = ["grid", "grid", "extension", "extension", "finalist"]
    (row,) = tuned_lr.tabulate(found, small_batch_size=8, tuning_budget=9).to_dict("records")
    assert row["edge"] == edge
    assert ("end above 4.5" in row["advice"]) == (edge == "high")


def test_cost_of_a_search_is_the_sum_of_its_stages_and_names_what_it_found():
    stages = ["grid", "grid", "extension", "search", "search", "finalist"]
    found = pd.DataFrame({"stage": stages, "trainings": [0.5, 0.5, 0.25, 0.125, 0.5, 3.0]})
    found = found.assign(
        batch_size=8,
        trial=range(6),
        learning_rate=[0.01, 0.1, 1.0, 0.2, 0.3, 0.3],
        momentum=[0.9, 0.9, 0.9, 0.5, 0.8, 0.8],
        validation_loss=[0.4, 0.3, np.inf, 0.9, 0.2, 0.1],
        n_pruned=[0, 0, 0, 1, 0, 0],
        is_best=[0, 0, 0, 0, 0, 1],
    )
    (row,) = tuned_lr.tabulate(found, small_batch_size=8, tuning_budget=6.0).to_dict("records")
    assert (row["tuned_learning_rate"], row["tuned_momentum"], row["validation_loss"]) == (0.3, 0.8, 0.1)
    spent = {"spent_grid": 1.0, "spent_search": 0.625, "spent_extension": 0.25, "spent_finalist": 3.0}
    assert {name: row[name] for name in spent} == spent
    assert (row["budget"], row["n_trials"], row["n_diverged_trials"], row["n_pruned_trials"]) == (6.0, 6, 1, 1)


def test_trial_has_the_quantile_of_its_seeds_unless_one_diverged():
    runs = pd.DataFrame({"trial": [0, 0, 1, 1, 2], "learning_rate": [0.1, 0.1, 0.9, 0.9, 0.5], "beta2": 0.9})
    runs = runs.assign(
        batch_size=8,
        stage=["grid", "grid", "grid", "grid", "search"],
        seed=[1, 2, 1, 2, 1],
        validation_loss=[0.2, 0.4, 0.1, np.inf, 0.7],
        status=["completed", "completed", "completed", "diverged", "pruned"],
        best_epoch=[3.0, 5.0, 2.0, np.nan, 1.0],
        trainings=0.25,
        cpu_seconds=2.0,
        is_best=[1, 1, 0, 0, 0],
    )
    table = trials.tabulate(runs, quantile=0.9)
    assert table["validation_loss"].to_numpy() == pytest.approx([0.38, np.inf, 0.7])
    assert trials.tabulate(runs, quantile=None)["validation_loss"].to_numpy() == pytest.approx([0.3, np.inf, 0.7])
    assert table[["n_seeds", "n_diverged", "n_pruned"]].to_numpy().tolist() == [[2, 0, 0], [1, 1, 0], [1, 0, 1]]
    assert table[["trainings", "cpu_seconds"]].to_numpy().tolist() == [[0.5, 4.0], [0.5, 4.0], [0.25, 2.0]]
    assert table["best_epoch"].tolist() == [4.0, 2.0, 1.0]
    assert table[["is_best", "beta2"]].to_numpy().tolist() == [[1, 0.9], [0, 0.9], [0, 0.9]]


def test_search_in_which_every_trial_diverged_is_reported():
    chosen, epochs, diverges = SCENARIOS["every run diverges"]
    found = trials.tabulate(make_analyses(chosen, epochs, diverges)["tables/trial_runs"], quantile=0.9)
    table = tuned_lr.tabulate(found, small_batch_size=32, tuning_budget=9)
    assert table["advice"].str.startswith("every trial diverged").all()
    assert table["n_diverged_trials"].tolist() == [3, 3]


def test_arms_have_no_sharpness_if_it_is_disabled():
    mapping = {"name": "blunt", "grid": {"batch_sizes": [32, 64]}, "sharpness": {"enabled": False}}
    chosen = Study.from_mapping(mapping, "blunt")
    frames = add_tables(chosen, make_analyses(chosen, 6, lambda _: False))
    assert set(frames["tables/scaled_lr"]["quantity"]) == {*OF_RUN, "distance", "update_norm"} - {"epoch_seconds"}
    assert "sharpness_before_after" not in chosen.plan.figures


def test_epoch_distance_ratios_are_paired_and_end_with_the_large_batch_run():
    columns = ["batch_size", "learning_rate", "seed", "status", "epoch", "epoch_distance"]
    data = [
        (32, 0.1, 0, "converged", 1, 8.0), (32, 0.1, 1, "converged", 1, 9.0), (32, 0.1, 0, "converged", 2, 6.0),
        (256, 0.1, 0, "converged", 1, 2.0), (256, 0.1, 1, "converged", 1, 3.0),
    ]  # fmt: skip
    moves = pd.DataFrame(data, columns=columns)
    moves["setting"] = "bs" + moves["batch_size"].astype(str) + "-lr0.1"
    warm = moves.assign(setting=moves["setting"] + "-warmup5", epoch_distance=7.0)  # separate pairs
    both = epoch_distance.tabulate(pd.concat([moves, warm], ignore_index=True), large_batch_size=256)
    tuned = moves.assign(setting="bs" + moves["batch_size"].astype(str) + "-lrtuned")
    tuned.loc[tuned["batch_size"] == 32, "learning_rate"] = 0.3  # a search selects a different rate per batch size
    alone = epoch_distance.tabulate(tuned, large_batch_size=256)
    assert alone.groupby("batch_size")["n_ratios"].sum().to_dict() == {32: 0, 256: 2}
    of_warm = both["setting"].str.endswith("-warmup5")
    assert set(both[of_warm]["ratio_to_large_mean"].dropna()) == {1.0}
    table = both[~of_warm].set_index(["batch_size", "epoch"])
    assert table.loc[(32, 1), "ratio_to_large_mean"] == pytest.approx((8 / 2 + 9 / 3) / 2)
    assert table.loc[(32, 1), "n_ratios"] == 2
    assert np.isnan(table.loc[(32, 2), "ratio_to_large_mean"])
    assert table.loc[(32, 2), "n_ratios"] == 0
    assert table.loc[(256, 1), "ratio_to_large_mean"] == 1


def test_epoch_distance_ratios_compare_equal_numbers_of_epochs():
    """With evaluations every 32 steps, batch size 32 has four in the epochs between two of batch size 128."""
    rows = [(32, epoch, 1.0) for epoch in range(1, 9)] + [(128, epoch, 4.0) for epoch in (4, 8)]
    moves = pd.DataFrame(rows, columns=["batch_size", "epoch", "epoch_distance"])
    moves = moves.assign(setting="bs" + moves["batch_size"].astype(str) + "-lr0.1", learning_rate=0.1, seed=0)
    table = epoch_distance.tabulate(moves.assign(status="converged"), large_batch_size=128)
    ratios = table.set_index(["batch_size", "epoch"])["ratio_to_large_mean"]
    assert ratios[32].isna().all()
    assert ratios[128].tolist() == [1, 1]


def test_update_norm_quantiles_are_means_of_the_quantiles_of_runs():
    chosen, epochs, diverges = SCENARIOS["plain"]
    table = update_norms.tabulate(make_analyses(chosen, epochs, diverges)["analysis/update_norms"])
    row = table.set_index(["batch_size", "learning_rate"]).loc[(32, 0.01)]
    for name, percentile in {f"update_norm_p{percentile:02}": percentile for percentile in (5, 25, 50, 75, 95)}.items():
        assert row[f"{name}_mean"] == pytest.approx(percentile / 32)
    assert row["updates_mean"] == pytest.approx(10 * (6 + 7 + 8) / 3)
