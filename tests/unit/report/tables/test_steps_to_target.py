"""Steps to targets and the critical batch size, with synthetic runs and exact hyperbolas."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from batchscape.report.figures import steps_to_target as figure
from batchscape.report.tables import critical_batch, regimes, runs_to_target, steps_to_target
from tests.helpers.measures import CLASSIFICATION

SIZES = np.array([16.0, 32, 64, 128, 256])


def history(*runs: tuple) -> pd.DataFrame:
    """Return a history from (batch size, rate or None for a tuned 0.5, seed, status, losses), with 100 examples."""
    rows = []
    for batch_size, rate, seed, status, losses in runs:
        setting = f"bs{batch_size}-lr{'tuned' if rate is None else rate}"
        lead = {"batch_size": batch_size, "learning_rate": rate or 0.5, "setting": setting, "seed": seed}
        for epoch, loss in enumerate(losses, start=1):
            times = {"epoch": epoch, "step": epoch * -(-100 // batch_size), "examples": 100 * epoch}
            times |= {"train_seconds": 2.0 * batch_size, "train_cpu_seconds": 1.0 * batch_size}
            rows.append({**lead, "status": status, **times, "validation_loss": loss})
    return pd.DataFrame(rows)


GRID = history(
    (10, 0.1, 0, "converged", [9, 5, 3]), (10, 0.1, 1, "converged", [9, 4, 4]),  # both reach 4
    (10, 0.2, 0, "converged", [4, 1, 2]), (10, 0.2, 1, "converged", [9, 8, 8]),  # one reaches only 8
    (40, 0.1, 0, "converged", [6, 5, 7]), (40, 0.1, 1, "budget_spent", [9, 6, 4]),  # both reach 5
    (40, 0.2, 0, "converged", [2, 2, 2]), (40, 0.2, 1, "diverged", [1, np.nan]),
)  # fmt: skip


def target(value: float, name: str = "loss", higher_is_better: bool = False) -> list[dict]:
    """Return the setting `targets` with a single target."""
    return [{"name": name, "value": value, "higher_is_better": higher_is_better}]


def best_losses(frame: pd.DataFrame) -> pd.DataFrame:
    run = ["batch_size", "setting", "seed", "status"]
    return frame.groupby(run)["validation_loss"].min().rename("best_validation_loss").reset_index()


def test_common_target_is_the_lowest_loss_that_every_batch_size_reaches_with_all_seeds():
    assert runs_to_target.common_target(best_losses(GRID)) == 5  # batch size 10 reaches 4, 40 reaches 5


def test_batch_size_that_always_diverges_is_ignored_for_the_target():
    lost = history((80, 0.1, 0, "diverged", [0.1, np.nan]), (80, 0.1, 1, "converged", [0.1]))
    assert runs_to_target.common_target(best_losses(pd.concat([GRID, lost]))) == 5
    assert np.isnan(runs_to_target.common_target(best_losses(lost)))


def test_run_reaches_the_target_after_the_first_epoch_at_or_below_it():
    table = runs_to_target.tabulate(GRID, targets=[]).set_index(["setting", "seed"])
    assert set(table["target_value"]) == {5}
    times = table[["epochs", "steps", "examples"]]
    assert times.loc[("bs10-lr0.1", 0)].tolist() == [2, 20, 200]
    assert times.loc[("bs40-lr0.1", 1)].tolist() == [3, 9, 300]  # 40, 40 and 20 examples per epoch
    assert times.loc[("bs10-lr0.2", 0)].tolist() == [1, 10, 100]
    assert times.loc[("bs10-lr0.2", 1)].isna().all()
    assert len(table) == 8


@pytest.mark.parametrize("stages", ["-x4at50pct", "-grow2max512sqrt", "-batchwarmup"])
def test_setting_whose_batch_size_changes_is_not_the_best_one_of_a_batch_size(stages: str):
    """It would need only half of the steps of batch size 10, and lower the target."""
    grown = history((10, 0.1, 0, "converged", [1, 1, 1]), (10, 0.1, 1, "converged", [1, 1, 1]))
    grown = grown.assign(setting=grown["setting"] + stages, step=grown["step"] // 2)
    runs = runs_to_target.tabulate(pd.concat([GRID, grown]), targets=[])
    assert set(runs["target_value"]) == {5}
    table = steps_to_target.tabulate(runs).set_index("setting")
    assert table.loc[f"bs10-lr0.1{stages}", ["is_best", "steps_mean"]].tolist() == [0, 5]
    columns = ["is_best", "edge", "steps_mean"]
    alone = steps_to_target.tabulate(runs_to_target.tabulate(GRID, targets=[])).set_index("setting")
    pd.testing.assert_frame_equal(table.loc[alone.index, columns], alone[columns])


def test_target_of_the_config_is_used():
    table = runs_to_target.tabulate(GRID, targets=target(2.0))
    assert set(table["target_value"]) == {2.0}
    assert table["steps"].notna().sum() == 3


def test_time_to_a_target_is_that_of_all_training_until_then():
    table = runs_to_target.tabulate(GRID.sample(frac=1, random_state=0), targets=[]).set_index(["setting", "seed"])
    columns = ["evaluations", "seconds", "cpu_seconds"]
    assert table.loc[("bs10-lr0.1", 1), columns].tolist() == [2, 40, 20]  # two epochs of 20 s
    assert table.loc[("bs40-lr0.1", 1), columns].tolist() == [3, 240, 120]
    assert table.loc[("bs10-lr0.2", 1), columns].isna().all()
    summary = steps_to_target.tabulate(table.reset_index()).set_index("setting")
    assert summary.loc["bs10-lr0.1", ["seconds_mean", "cpu_seconds_mean"]].tolist() == [40, 20]


def test_missed_runs_are_counted_and_settings_without_them_are_preferred():
    table = steps_to_target.tabulate(runs_to_target.tabulate(GRID, targets=[])).set_index("setting")
    assert table["n_missed"].to_dict() == {"bs10-lr0.1": 0, "bs10-lr0.2": 1, "bs40-lr0.1": 0, "bs40-lr0.2": 0}
    assert table["n_seeds"].tolist() == [2, 2, 2, 1]
    assert table["n_diverged"].tolist() == [0, 0, 0, 1]
    assert table.loc["bs10-lr0.2", "steps_mean"] == 10  # of the run that reached the target; still not the best
    assert table[table["is_best"] == 1].index.tolist() == ["bs10-lr0.1", "bs40-lr0.1"]
    assert table["edge"].tolist() == ["low", "none", "low", "none"]


@pytest.mark.parametrize(
    ("rates", "best", "edge"),
    [
        ({0.1: 4, 0.2: 2, 0.3: 3}, "bs10-lr0.2", "none"),
        ({0.1: 2, 0.2: 2, 0.3: 3}, "bs10-lr0.1", "low"),
        ({0.1: 4, 0.2: 3, 0.3: 2}, "bs10-lr0.3", "high"),
        ({0.1: 4}, "bs10-lr0.1", "both"),
        ({0.1: 4, 0.2: 3, None: 2}, "bs10-lrtuned", "high"),
    ],
)
def test_best_rate_takes_the_fewest_steps(rates: dict[float | None, int], best: str, edge: str):
    runs = [(10, rate, 0, "converged", [9.0] * (epochs - 1) + [1.0]) for rate, epochs in rates.items()]
    table = steps_to_target.tabulate(runs_to_target.tabulate(history(*runs), targets=target(1.0)))
    row = table[table["is_best"] == 1]
    assert (row["setting"].item(), row["edge"].item()) == (best, edge)


def test_no_setting_is_best_if_no_run_reaches_the_target():
    table = steps_to_target.tabulate(runs_to_target.tabulate(GRID, targets=target(0.5)))
    assert table["is_best"].sum() == 0
    assert table["n_missed"].tolist() == [2, 2, 2, 1]
    assert table["steps_mean"].isna().all()


# Several targets, of the loss and of metrics.

RATES_DIFFER = history(
    *((size, 0.1, seed, "converged", [3, 1, 1, 1]) for size in (10, 20, 40) for seed in (0, 1)),
    *((size, 0.2, seed, "converged", [3, 3, 1, 1]) for size in (10, 20, 40) for seed in (0, 1)),
).assign(validation_accuracy=[0.5, 0.6, 0.7, 0.9] * 6 + [0.5, 0.9, 0.9, 0.9] * 6)  # the other rate is best for it
BOTH = target(1.0) + target(0.9, "accuracy", higher_is_better=True)


@pytest.mark.parametrize(
    ("higher_is_better", "value", "epoch"),
    [
        (True, 0.5, 1), (True, 0.75, 3), (True, 0.76, 5), (True, 0.9, np.nan),  # the last one only by nan
        (False, 0.5, 1), (False, 0.25, 4), (False, 0.2, np.nan),
    ],
)  # fmt: skip
def test_a_metric_is_reached_at_or_beyond_its_target_on_its_better_side(
    higher_is_better: bool, value: float, epoch: float
):
    runs = history((10, 0.1, 0, "converged", [9] * 6))
    runs["validation_m"] = [0.5, np.nan, 0.75, 0.25, 0.875, np.nan]
    table = runs_to_target.tabulate(runs, targets=target(value, "m", higher_is_better))
    assert table[["target", "target_value"]].to_numpy().tolist() == [["m", value]]
    np.testing.assert_array_equal(table["epochs"], [epoch])
    np.testing.assert_array_equal(table["steps"], [10 * epoch])


def test_a_target_is_not_reached_by_nan_alone():
    runs = history((10, 0.1, 0, "diverged", [np.nan, np.nan])).assign(validation_accuracy=np.nan)
    for higher_is_better in (True, False):
        table = runs_to_target.tabulate(runs, targets=target(0.5, "accuracy", higher_is_better))
        assert table["steps"].isna().all()


def test_each_target_has_its_own_best_settings():
    runs = runs_to_target.tabulate(RATES_DIFFER, targets=BOTH)
    assert runs.groupby(["target", "target_value"], sort=False).size().to_dict() == {
        ("loss", 1): 12,
        ("accuracy", 0.9): 12,
    }
    table = steps_to_target.tabulate(runs)
    best = table[table["is_best"] == 1].set_index(["target", "batch_size"])
    assert best["learning_rate"].to_dict() == {
        **{("loss", size): 0.1 for size in (10, 20, 40)},
        **{("accuracy", size): 0.2 for size in (10, 20, 40)},
    }
    assert best["edge"].tolist() == ["low"] * 3 + ["high"] * 3
    assert best["epochs_mean"].tolist() == [2] * 6
    # At the other rate of each.
    assert table[table["is_best"] == 0].groupby("target")["epochs_mean"].unique().to_dict() == {
        "loss": 3,
        "accuracy": 4,
    }


def test_tables_of_several_targets_are_those_of_single_ones_first_target_first():
    def tables(targets: list[dict]) -> list[pd.DataFrame]:
        runs = runs_to_target.tabulate(RATES_DIFFER, targets=targets)
        steps = steps_to_target.tabulate(runs)
        return [runs, steps, critical_batch.tabulate(runs, steps)]

    first, second, missed = BOTH[:1], BOTH[1:], target(0.5)
    expected = [
        pd.concat(parts, ignore_index=True) for parts in zip(tables(second), tables(missed), tables(first), strict=True)
    ]
    for found, frame in zip(tables([*second, *missed, *first]), expected, strict=True):
        pd.testing.assert_frame_equal(found, frame, check_dtype=False)
    assert expected[2]["target"].tolist() == ["accuracy", "loss", "loss"]
    assert expected[2]["n_runs"].tolist() == [6, 0, 6]


def draw(runs: pd.DataFrame, table: pd.DataFrame) -> Figure:
    fits, ratios = (module.tabulate(runs, table) for module in (critical_batch, regimes))
    return figure.draw(runs, table, fits, ratios, measures=CLASSIFICATION).draw()


def texts_of(drawn: Figure) -> str:
    return " ".join(" ".join(text.get_text() for text in drawn.findobj(Text)).split())


@pytest.mark.parametrize(
    ("targets", "title", "subtitle"),
    [
        (BOTH, "target validation loss", "Target 1 nats (the first of 2), at"),
        (BOTH[::-1], "target validation accuracy", "Target accuracy 0.9 (the first of 2), at"),
        (BOTH[:1], "target validation loss", "Target 1 nats, at"),
        (
            target(0.9995, "accuracy", higher_is_better=True),
            "target validation accuracy",
            "No run reached the target, accuracy 0.9995",
        ),
    ],
)
def test_figure_shows_the_first_target_and_says_which(targets: list[dict], title: str, subtitle: str):
    runs = runs_to_target.tabulate(RATES_DIFFER, targets=targets)
    table = steps_to_target.tabulate(runs)
    drawn = draw(runs, table)
    texts = texts_of(drawn)
    assert f"Steps and epochs to the {title}" in texts
    assert subtitle in texts
    reached = 0 if "No run" in subtitle else 6 + 3  # seeds and means of the first target alone
    for panel in drawn.axes:
        assert sum(len(points.get_offsets()) for points in panel.collections) == reached


# Critical batch size.


@pytest.mark.parametrize("critical", [2.0, 50.0, 3000.0])
def test_parameters_of_exact_hyperbolas_are_recovered(critical: float):
    steps = 120 * (1 + critical / SIZES)
    found, reason = critical_batch.fit(SIZES, steps)
    assert reason == ""
    min_steps, min_examples = np.exp(found[1:])
    assert np.exp(found) == pytest.approx([critical, 120, 120 * critical], rel=1e-5)
    # The relation of McCandlish et al. between steps and examples, E = S·B.
    s, e = steps / min_steps, steps * SIZES / min_examples
    assert (s - 1) * (e - 1) == pytest.approx(1, rel=1e-3)


def test_fit_minimizes_the_squares_of_the_logarithms():
    rng = np.random.default_rng(0)
    sizes = np.repeat(SIZES, 4)
    steps = 120 * (1 + 50 / sizes) * np.exp(rng.normal(0, 0.05, len(sizes)))
    critical, min_steps, _ = np.exp(critical_batch.fit(sizes, steps)[0])
    derivative = critical / (sizes + critical)  # ∂ ln S/∂ ln B_crit
    design = np.stack([np.ones_like(derivative), derivative], axis=1)
    residuals = np.log(steps / (min_steps * (1 + critical / sizes)))
    assert design.T @ residuals == pytest.approx([0, 0], abs=1e-6)


def test_noise_that_seeds_share_does_not_widen_the_interval_of_the_critical_batch():
    """The factor of a seed changes S_min alone: treated as independent runs, it would hide the critical batch size."""
    rng = np.random.default_rng(0)
    steps = 120 * (1 + 50 / SIZES) * np.exp(rng.normal(0, 0.01, (4, len(SIZES))))
    alone, shared = (
        critical_batch.estimate(SIZES, steps * factor) for factor in (1.0, np.array([[0.5], [1.0], [1.5], [4.0]]))
    )
    for name in ("critical_batch", "critical_batch_20pct"):
        assert shared[name] == pytest.approx(alone[name], rel=1e-5)
    assert shared["min_steps"].ci95_high / shared["min_steps"].ci95_low > 3


@pytest.mark.parametrize("seeds", [1, 2])
def test_critical_batch_of_one_seed_has_no_interval(seeds: int):
    noise = np.exp(np.random.default_rng(1).normal(0, 0.01, (seeds, len(SIZES))))
    found = critical_batch.estimate(SIZES, 120 * (1 + 50 / SIZES) * noise)["critical_batch"]
    assert np.isfinite([found.ci95_low, found.ci95_high]).all() == (seeds == 2)
    assert found.value == pytest.approx(50, rel=0.1)


def test_seeds_that_take_the_same_steps_give_no_interval():
    steps = np.tile(120 * (1 + 50 / SIZES), (3, 1))
    found = critical_batch.estimate(SIZES, steps)
    assert found["critical_batch"].value == pytest.approx(50, rel=1e-5)
    assert all(np.isnan([each.ci95_low, each.ci95_high]).all() for each in found.values())
    runs = scaled_runs(120.0)
    table = regimes.tabulate(runs, steps_to_target.tabulate(runs))
    assert table["regime"].eq("not determined").all()
    ties = table[table["n_seeds"] > 1]
    assert len(ties) == 2 and ties["reason"].str.contains("evaluate more often").all()


def test_interval_is_unbounded_if_one_seed_decides_that_there_is_a_fit():
    falling, level = 120 * (1 + 50 / SIZES), np.full(len(SIZES), 200.0)
    found = critical_batch.estimate(SIZES, np.stack([falling, level]))["critical_batch"]
    assert np.isfinite(found.value)
    assert (found.ci95_low, found.ci95_high) == (0, np.inf)


def test_twenty_percent_critical_batch_is_where_steps_are_a_fifth_above_perfect_scaling():
    excess = np.array([1.0, 1.0, 1.1, 1.32, 2.0])
    steps = 1000 / SIZES * excess
    share = np.log(1.2 / 1.1) / np.log(1.32 / 1.1)
    assert np.exp(critical_batch.find_overhead_batch(SIZES, steps)) == pytest.approx(64 * 2**share)
    assert np.exp(critical_batch.find_overhead_batch(SIZES[:3], steps[:3])) == np.inf  # even 64 needs less
    assert np.isnan(critical_batch.find_overhead_batch(SIZES[:1], steps[:1]))


@pytest.mark.parametrize(
    ("sizes", "steps", "expected"),
    [
        (SIZES, np.full(5, 70.0), "do not fall"),
        (SIZES, SIZES, "do not fall"),
        (SIZES, 1000 / SIZES, "in proportion"),
        (SIZES, 1000 / SIZES**2, "in proportion"),
        (np.array([32.0, 64, 64]), np.array([9.0, 6, 5]), "only 2 batch sizes reached"),
        (np.array([]), np.array([]), "no batch size"),
    ],
)
def test_critical_batch_is_not_identified_by_such_data(sizes: np.ndarray, steps: np.ndarray, expected: str):
    found, reason = critical_batch.fit(sizes, steps)
    assert expected in reason
    assert np.isnan(found).all()


def scaled_runs(critical: float) -> pd.DataFrame:
    """Return runs of 3 seeds with 1000 examples, so that 300 and 400 leave a short batch; one misses, one diverges."""
    rows = []
    for batch_size in (50, 100, 300, 400):
        of_epoch = -(-1000 // batch_size)
        steps = 100 * (1 + critical * of_epoch / 1000)
        for seed in range(3):
            lead = {"batch_size": batch_size, "learning_rate": 0.1, "setting": f"bs{batch_size}-lr0.1", "seed": seed}
            times = {"epochs": steps / of_epoch, "steps": steps, "examples": steps / of_epoch * 1000}
            times |= {"seconds": steps, "cpu_seconds": steps / batch_size, "evaluations": 9}
            rows.append({**lead, "status": "converged", "target": "loss", "target_value": 0.3, **times})
    table = pd.DataFrame(rows)
    table.loc[4, ["epochs", "steps", "examples"]] = np.nan
    table.loc[8, ["status", "steps"]] = ["diverged", 1.0]
    return table


@pytest.mark.parametrize(("critical", "verdict"), [(120.0, "inside"), (1200.0, "outside"), (20.0, "outside")])
def test_table_accounts_for_short_batches_and_excluded_runs(critical: float, verdict: str):
    runs = scaled_runs(critical)
    row = critical_batch.tabulate(runs, steps_to_target.tabulate(runs)).iloc[0]
    assert row["critical_batch"] == pytest.approx(critical, rel=1e-5)
    assert row["min_steps"] == pytest.approx(100, rel=1e-5)
    assert row["min_examples"] == pytest.approx(100 * critical, rel=1e-5)
    assert row["min_epochs"] == pytest.approx(critical / 10, rel=1e-5)
    assert row[["n_runs", "n_missed", "n_diverged", "n_on_edge", "n_batch_sizes"]].tolist() == [10, 1, 1, 4, 4]
    assert (row["verdict"], row["reason"]) == (verdict, "none")
    assert row["n_at_first_evaluation"] == 0
    first = runs.assign(evaluations=np.where(runs["batch_size"] == 50, 1, runs["evaluations"]))
    assert critical_batch.tabulate(first, steps_to_target.tabulate(first))["n_at_first_evaluation"].tolist() == [3]


def test_two_batch_sizes_are_not_three_because_an_epoch_ends_with_a_smaller_batch():
    """If runs reach the target within an epoch, the mean size of their batches differs."""
    runs = scaled_runs(120.0)
    runs = runs[runs["batch_size"].isin([50, 300]) & (runs["status"] == "converged")]
    runs = runs.assign(examples=runs["examples"] * (1 + runs["seed"] / 100))
    row = critical_batch.tabulate(runs, steps_to_target.tabulate(runs)).iloc[0]
    assert np.isnan(row["critical_batch"])
    assert (row["verdict"], row["reason"][:26]) == ("not identified", "only 2 batch sizes reached")


def test_runs_at_other_rates_are_excluded_from_the_fit():
    runs = scaled_runs(120.0)
    others = runs.assign(learning_rate=0.2, steps=10 * runs["steps"], setting=runs["setting"].str.replace("0.1", "0.2"))
    runs = pd.concat([runs, others], ignore_index=True)
    row = critical_batch.tabulate(runs, steps_to_target.tabulate(runs)).iloc[0]
    # Batch sizes 100 and 300 have a failed run at both rates, so the better rate is still the best.
    assert row["critical_batch"] == pytest.approx(120, rel=1e-5)


def test_run_that_diverged_after_reaching_the_target_is_not_drawn():
    grid = history(
        *((size, 0.1, seed, "converged", [9, 5, 3]) for size in (10, 40) for seed in (0, 1)),
        (10, 0.1, 2, "diverged", [1, np.nan]), (40, 0.1, 2, "converged", [9, 5, 3]),
    )  # fmt: skip
    runs = runs_to_target.tabulate(grid, targets=target(5.0))
    table = steps_to_target.tabulate(runs)
    drawn = draw(runs, table)
    for panel in drawn.axes:
        assert sum(len(points.get_offsets()) for points in panel.collections) == 5 + 2  # seeds, and means


def test_critical_batch_above_1000_is_written_without_an_exponent():
    runs = scaled_runs(1200.0)
    table = steps_to_target.tabulate(runs)
    drawn = draw(runs, table)
    assert "Critical batch size 1200 (95 % interval 1200 to 1200)" in texts_of(drawn)
