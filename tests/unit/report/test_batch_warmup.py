"""A batch size warm-up: its stages follow from the critical batch sizes, and the table says what it saves."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from batchscape.config.budget import Warmup
from batchscape.config.stages import StageConfig
from batchscape.report.batch_warmup import choose_stages, grow_batch
from batchscape.report.tables.batch_schedule import tabulate

BASE = "bs32-lr0.1"


def measured(*factors: float, setting: str = BASE) -> pd.DataFrame:
    """Return the table `branching` with these critical multiples of batch size 32 after 100, 200, … examples."""
    examples = [100.0 * (index + 1) if np.isfinite(factor) else np.nan for index, factor in enumerate(factors)]
    sizes = [32 * factor for factor in factors]
    return pd.DataFrame({"setting": setting, "batch_size": 32, "examples": examples, "critical_batch": sizes})


@pytest.mark.parametrize(
    ("factors", "expected"),
    [
        ((1, 2, 4), {200: 2, 300: 4}),
        ((8, 8, 8), {100: 8}),
        # It never shrinks, and grows again only above the largest one.
        ((4, 2, 1, 8), {100: 4, 400: 8}),
        ((2, np.nan, 4), {100: 2, 300: 4}),
        ((1, 1), {}),
        ((np.nan,), {}),
        ((), {}),
    ],
)
def test_batch_size_is_the_largest_critical_one_so_far(factors: tuple[float, ...], expected: dict[int, int]):
    table = measured(*factors)
    assert grow_batch(table) == expected
    assert grow_batch(table.iloc[::-1]) == expected


@given(st.lists(st.sampled_from([1, 2, 4, 8, 16]), max_size=6))
def test_batch_size_never_shrinks_and_is_never_above_all_measured_ones(factors: list[int]):
    found = grow_batch(measured(*factors))
    for examples in range(100, 100 * len(factors) + 1, 100):
        batch_size = max([1, *(factor for start, factor in found.items() if start <= examples)])
        assert batch_size == max([1, *factors[: examples // 100]])


@pytest.mark.parametrize(
    ("rule", "rate_factors"), [("constant", [1, 1]), ("linear", [2, 8]), ("sqrt", [2**0.5, 8**0.5])]
)
def test_learning_rate_follows_as_in_the_branches(rule: str, rate_factors: list[float]):
    assert choose_stages(measured(2, 1, 8), rule) == tuple(
        StageConfig(start=Warmup(examples=start), batch_size_factor=factor, learning_rate_factor=rate)
        for start, factor, rate in zip((100, 300), (2, 8), rate_factors, strict=True)
    )


def history_of(runs: dict[tuple[str, int], tuple[list[int], list[float]]], status: str = "completed") -> pd.DataFrame:
    """Return the steps and validation losses of the evaluations of runs, given by setting and seed."""
    return pd.concat(
        [
            pd.DataFrame({"setting": setting, "seed": seed, "step": steps, "validation_loss": losses})
            for (setting, seed), (steps, losses) in runs.items()
        ]
    ).assign(batch_size=32, learning_rate=0.1, status=status)


WARMED_UP = f"{BASE}-batchwarmup"


def test_saved_steps_and_losses_are_paired_by_seed():
    """Both runs of seed 0 reach a loss of 0.5, with 400 and 200 steps; of seed 1 a loss of 0.4, with 400 and 100."""
    history = history_of(
        {
            (BASE, 0): ([100, 200, 300, 400], [0.9, 0.8, 0.6, 0.5]),
            (WARMED_UP, 0): ([100, 150, 175, 200], [0.9, 0.7, 0.6, 0.5]),
            (BASE, 1): ([100, 200, 300, 400], [0.9, 0.8, 0.6, 0.4]),
            (WARMED_UP, 1): ([50, 100, 150, 160], [0.9, 0.4, 0.3, 0.2]),
            # Not paired.
            (BASE, 2): ([100], [0.1]),
            ("bs32-lr0.2", 0): ([100], [0.1]),
        }
    )
    (row,) = tabulate(history, pd.concat([measured(1, 4), measured(8, setting="bs32-lr0.2")])).to_dict("records")
    assert (row["setting"], row["base_setting"], row["stages"]) == (WARMED_UP, BASE, "128 from 200 examples")
    assert (row["n_seeds"], row["n_diverged"]) == (2, 0)
    assert (row["base_steps_mean"], row["steps_mean"]) == (400, 180)
    assert (row["base_best_validation_loss_mean"], row["best_validation_loss_mean"]) == pytest.approx((0.45, 0.35))
    for name, ratios, is_saved in (
        ("steps_saved", [200 / 400, 160 / 400], True),
        ("steps_saved_to_loss", [200 / 400, 100 / 400], True),
        ("loss_ratio", [0.5 / 0.5, 0.2 / 0.4], False),
    ):
        logs = np.log(ratios)
        ends = stats.t.interval(0.95, 1, logs.mean(), stats.sem(logs))
        values = np.exp([logs.mean(), *ends])
        expected = 1 - values[[0, 2, 1]] if is_saved else values
        assert [row[name], row[f"{name}_ci95_low"], row[f"{name}_ci95_high"]] == pytest.approx(list(expected)), name


def test_pairs_with_a_diverged_run_are_left_out():
    runs = {(BASE, 0): ([10], [0.5]), (WARMED_UP, 0): ([5], [0.5])}
    diverged = history_of({(BASE, 1): ([10], [0.5])}), history_of({(WARMED_UP, 1): ([5], [np.nan])}, "diverged")
    (row,) = tabulate(pd.concat([history_of(runs), *diverged]), measured(2)).to_dict("records")
    assert (row["n_seeds"], row["n_diverged"]) == (1, 1)
    assert row["steps_saved"] == pytest.approx(0.5)
    assert np.isnan(row["steps_saved_ci95_low"])
    (row,) = tabulate(pd.concat(diverged), measured(1)).to_dict("records")
    assert (row["n_seeds"], row["n_diverged"], row["stages"]) == (0, 1, "none")
    assert np.isnan(row["steps_saved"])


def test_losses_that_are_not_positive_have_no_ratio():
    runs = {(BASE, 0): ([10], [-0.5]), (WARMED_UP, 0): ([5], [0.5])}
    (row,) = tabulate(history_of(runs), measured(2)).to_dict("records")
    assert (row["steps_saved"], row["steps_saved_to_loss"]) == pytest.approx((0.5, 0.5))
    assert np.isnan(row["loss_ratio"])


def test_table_without_complete_runs_is_empty_with_its_columns():
    table = tabulate(history_of({(BASE, 0): ([10], [0.5])}), measured(2))
    assert table.empty
    assert {"base_setting", "stages", "loss_ratio_ci95_high", "n_diverged"} < set(table.columns)
