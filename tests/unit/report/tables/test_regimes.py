"""Regimes of the batch size, and the frontier of time and examples."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from batchscape.report.resampling import Estimate
from batchscape.report.tables import frontier, regimes, steps_to_target

EXAMPLES = 1000


def runs_to_target(steps: dict[int, list[float]], times: dict[int, float] | None = None) -> pd.DataFrame:
    """Return the table of runs at one rate with the steps of each seed, and seconds for each step by batch size."""
    rows = [
        {
            **{"batch_size": size, "learning_rate": 0.1, "setting": f"bs{size}-lr0.1", "seed": seed},
            **{"status": "converged", "target": "loss", "target_value": 0.3},
            **{"epochs": count * size / EXAMPLES, "steps": count, "examples": count * size, "evaluations": 5},
            **{"cpu_seconds": count * (times or {}).get(size, 1.0), "seconds": 2 * count},
        }
        for size, counts in steps.items()
        for seed, count in enumerate(counts)
    ]
    return pd.DataFrame(rows)


def regimes_of(runs: pd.DataFrame) -> pd.DataFrame:
    return regimes.tabulate(runs, steps_to_target.tabulate(runs)).set_index("batch_size")


STEPS = {16: [800, 600, 1000], 32: [404, 297, 500], 128: [190, 160, 230], 256: [192, 158, 229]}


def test_ratio_of_steps_for_a_doubling_is_paired_by_seed():
    table = regimes_of(runs_to_target(STEPS))
    assert table["larger_batch_size"].to_dict() == {16: 32, 32: 128, 128: 256}
    logs = {size: np.log(counts) for size, counts in STEPS.items()}
    for size, larger, doublings in ((16, 32, 1), (32, 128, 2), (128, 256, 1)):
        slopes = (logs[larger] - logs[size]) / doublings
        interval = stats.ttest_1samp(slopes, 0).confidence_interval(0.95)
        found = table.loc[size, ["steps_ratio", "ci95_low", "ci95_high"]].astype(float)
        assert found.to_list() == pytest.approx(np.exp([slopes.mean(), interval.low, interval.high]).tolist())
    assert table["regime"].tolist() == ["perfect scaling", "diminishing returns", "maximal parallelism"]
    assert table["reason"].tolist() == ["none"] * 3
    assert table["n_on_edge"].tolist() == [2] * 3  # one rate was tried


@pytest.mark.parametrize(
    ("low", "high", "regime"),
    [
        (0.45, 0.55, "perfect scaling"), (0.4, 0.49, "perfect scaling"), (0.51, 0.99, "diminishing returns"),
        (0.9, 1.1, "maximal parallelism"), (1.1, 1.2, "maximal parallelism"), (0.5, 1.0, "not determined"),
        (0.1, 3.0, "not determined"), (np.nan, np.nan, "not determined"),
    ],
)  # fmt: skip
def test_regime_follows_from_the_interval(low: float, high: float, regime: str):
    assert regimes.judge(Estimate(0.7, low, high)) == regime


def test_reason_says_why_a_regime_is_not_determined():
    one_seed = regimes_of(runs_to_target({16: [800], 32: [400]})).iloc[0]
    assert (one_seed["steps_ratio"], one_seed["regime"], one_seed["n_seeds"]) == (
        pytest.approx(0.5),
        "not determined",
        1,
    )
    assert one_seed["reason"] == "fewer than two seeds reached the target with both batch sizes"
    noisy = regimes_of(runs_to_target({16: [800, 400], 32: [300, 500]})).iloc[0]
    assert noisy["reason"] == "the interval contains both 1/2 and 1"
    unpaired = regimes_of(runs_to_target({16: [800, np.nan], 32: [np.nan, 400]})).iloc[0]
    assert (unpaired["n_seeds"], np.isnan(unpaired["steps_ratio"])) == (0, True)


def test_steps_of_the_first_evaluation_determine_no_regime():
    runs = runs_to_target(STEPS)
    runs.loc[(runs["batch_size"] == 128) & (runs["seed"] < 2), "evaluations"] = 1
    table = regimes_of(runs)
    assert table["n_at_first_evaluation"].tolist() == [0, 2, 2]
    assert table["regime"].tolist() == ["perfect scaling", "not determined", "not determined"]
    assert table.loc[32, "reason"].startswith("2 runs reached the target at the first evaluation")


def test_each_target_has_its_own_regimes_and_front():
    first = runs_to_target(STEPS)
    second = runs_to_target({16: [800, 600], 32: [800, 601]}).assign(target="accuracy", target_value=0.9)
    both = pd.concat([first, second], ignore_index=True)
    table = regimes.tabulate(both, steps_to_target.tabulate(both))
    assert table["target"].tolist() == ["loss"] * 3 + ["accuracy"]
    assert table["regime"].iloc[-1] == "maximal parallelism"
    points = frontier.tabulate(both, steps_to_target.tabulate(both), pd.DataFrame({"device": ["cpu"]}))
    assert points["target"].tolist() == ["loss"] * 4 + ["accuracy"] * 2


def test_tables_of_a_target_that_no_run_reached_are_empty():
    runs = runs_to_target({16: [np.nan, np.nan], 32: [np.nan, np.nan]}).assign(target_value=np.nan)
    steps = steps_to_target.tabulate(runs)
    assert regimes.tabulate(runs, steps).empty
    points = frontier.tabulate(runs, steps, pd.DataFrame({"device": ["cpu"]}))
    assert points.empty
    assert list(points.columns) == frontier.COLUMNS


def points_of(device: str = "cpu") -> pd.DataFrame:
    # Seconds for a step: 64 takes more time and more examples than 32, and is not on the front.
    runs = runs_to_target({16: [800, 600], 32: [420, 300], 64: [400, 300]}, {16: 1.0, 32: 1.5, 64: 1.6})
    return frontier.tabulate(runs, steps_to_target.tabulate(runs), pd.DataFrame({"device": ["cpu", device]}))


def test_front_has_the_batch_sizes_that_no_other_beats_in_time_and_examples():
    table = points_of().set_index("batch_size")
    assert table["time_mean"].tolist() == [700, 540, 560]
    assert table["examples_mean"].tolist() == [16 * 700, 32 * 360, 64 * 350]
    assert table["is_pareto"].tolist() == [1, 1, 0]
    assert set(table["time_unit"]) == {"CPU s"}


@pytest.mark.parametrize(
    ("costs", "front"),
    [
        ([[1, 1], [1, 1]], [True, True]), ([[1, 2], [2, 1], [2, 2]], [True, True, False]),
        ([[1, 2], [1, 1]], [False, True]), ([[3, 3]], [True]),
    ],
)  # fmt: skip
def test_equal_points_are_both_on_the_front(costs: list[list[float]], front: list[bool]):
    assert frontier.is_on_front(np.array(costs)).tolist() == front


def test_time_is_wall_time_if_a_run_trained_on_a_gpu():
    table = points_of("NVIDIA H200")
    assert table["time_mean"].tolist() == [1400, 720, 700]
    assert set(table["time_unit"]) == {"s"}


def test_factors_for_a_doubling_are_geometric_means_over_seeds():
    table = points_of().set_index("batch_size")
    assert table.loc[16, ["steps_ratio", "examples_ratio", "time_ratio"]].isna().all()
    ratio = np.sqrt(420 / 800 * 300 / 600)
    found = table.loc[32, ["steps_ratio", "examples_ratio", "time_ratio"]].astype(float).tolist()
    assert found == pytest.approx([ratio, 2 * ratio, 1.5 * ratio])
    assert table.loc[32, "time_ratio_ci95_low"] < 1.5 * ratio < table.loc[32, "time_ratio_ci95_high"]


def make_epochs(sizes: list[int], epochs: list[float], examples: int) -> pd.DataFrame:
    """Return runs that take equally many epochs with each batch size, the last batch of which may be smaller."""
    runs = runs_to_target({size: [1.0] * len(epochs) for size in sizes})
    runs["epochs"] = runs["seed"].map(dict(enumerate(epochs))) + runs["batch_size"] / 1e4 * (runs["seed"] - 1)
    runs["steps"] = runs["epochs"] * np.ceil(examples / runs["batch_size"])
    return runs.assign(examples=runs["epochs"] * examples)


def test_equal_epochs_are_perfect_scaling_where_the_last_batch_is_smaller():
    table = regimes_of(make_epochs([256, 512, 1024], [40, 41, 39], examples=1100))
    assert table["steps_ratio"].astype(float).to_list() == pytest.approx([0.5, 0.5], rel=0.01)
    assert table["regime"].tolist() == ["perfect scaling"] * 2


def test_batch_sizes_with_the_same_mean_size_are_not_compared():
    table = regimes_of(make_epochs([500, 999], [40, 41, 39], examples=1000))  # two batches each
    assert table["regime"].tolist() == ["not determined"]
    assert np.isnan(table["steps_ratio"].iloc[0])
    assert table["reason"].tolist() == ["both have the same mean size, because the last batch of an epoch is smaller"]
