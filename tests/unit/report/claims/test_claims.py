"""Claims on synthetic studies with known answers."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower

from batchscape.config.figures import FiguresConfig
from batchscape.config.study import Run
from batchscape.io.frames import read_frame, write_frame
from batchscape.report.claims.evidence import Evidence
from batchscape.report.claims.ratios import retuned_large_over_small
from batchscape.report.claims.statements import CLAIMS
from batchscape.report.claims.t_test import equivalence_p_value, t_test
from batchscape.report.claims.verdict import seeds_needed, verdict
from batchscape.report.figures import claims as figure
from batchscape.report.figures.layout import drawn
from batchscape.report.preview import preview_table
from batchscape.report.tables import claims
from batchscape.study.study import Study
from tests.helpers.claims import (
    CLAIM_NAMES,
    COMPARISONS,
    LARGE,
    LINEAR,
    SEEDS,
    SMALL,
    QuantityFunction,
    make_sources,
    make_study,
    scale_quantities,
    seed_noise,
)
from tests.helpers.measures import CLASSIFICATION, WORDS


def best_at(rates: dict[int, float]) -> QuantityFunction:
    """Return quantities in which the best validation loss grows with the distance from a batch size's best rate."""

    def value_of(run: Run, quantity: str) -> float:
        distance = abs(np.log(run.learning_rate / rates[run.batch_size])) if quantity == "best_validation_loss" else 0
        return seed_noise(run, quantity) * (1 + distance)

    return value_of


def tabulate_claims(frames: list[pd.DataFrame], chosen: Study | None = None) -> pd.DataFrame:
    chosen = chosen or make_study()
    table = claims.tabulate(
        *frames,
        small_batch_size=chosen.small_batch_size,
        large_batch_size=chosen.large_batch_size,
        measures=CLASSIFICATION,
        protocol="at equal steps",
    )
    return table.set_index("claim")


def of_large(quantity: str, factor: float) -> QuantityFunction:
    return scale_quantities((quantity, 128, 0.01, factor))


def of_linear(quantity: str, factor: float) -> QuantityFunction:
    """At the fixed rate the large batch has 4 times the value of the small one; with linear scaling `factor` times."""
    return scale_quantities((quantity, 128, 0.01, 4), (quantity, 128, 0.04, factor))


def supporting_and_refuting(
    direction: int, quantity: str, change: Callable[[str, float], QuantityFunction] = of_large
) -> tuple[QuantityFunction, QuantityFunction]:
    return change(quantity, 2.0**direction), change(quantity, 2.0**-direction)


def at_all_rates(factor: float) -> QuantityFunction:
    """Return quantities in which the large batch has `factor` times the loss of the small one at each rate."""
    return scale_quantities(*(("best_validation_loss", 128, rate, factor) for rate in (0.01, 0.02, 0.04, 0.08)))


RETUNED = ("retuned_equal", "worse_at_equal_steps")
# A study that supports the claim, and one that refutes it.
CASES = {
    "slower_descent": supporting_and_refuting(+1, "train_loss"),
    "higher_validation_loss": supporting_and_refuting(+1, "best_validation_loss"),
    "shorter_epochs": supporting_and_refuting(-1, "epoch_cpu_seconds"),
    "more_epochs": supporting_and_refuting(+1, "best_epoch"),
    "nearer_to_init": supporting_and_refuting(-1, "distance"),
    "shorter_moves": supporting_and_refuting(-1, "epoch_distance"),
    "smaller_updates": supporting_and_refuting(-1, "update_norm"),
    "sharper_minima": supporting_and_refuting(+1, "sharpness"),
    "linear_closes_gap": (of_linear("best_validation_loss", 1.8), of_linear("best_validation_loss", 2.2)),
    "linear_restores_epochs": (of_linear("best_epoch", 1.8), of_linear("best_epoch", 2.2)),
    "linear_flattens": (of_linear("sharpness", 3.6), of_linear("sharpness", 4.4)),
    "linear_goes_further": (of_linear("distance", 4.4), of_linear("distance", 3.6)),
    "smallest_not_best": (
        scale_quantities(("best_validation_loss", 32, 0.08, 2)),
        scale_quantities(("best_validation_loss", 32, 0.08, 0.5)),
    ),
    "best_rate_grows": (
        best_at({32: 0.01, 64: 0.04, 128: 0.04}),
        best_at({32: 0.08, 64: 0.04, 128: 0.04}),
    ),
    "retuned_equal": (at_all_rates(1), at_all_rates(2)),
    "worse_at_equal_steps": (at_all_rates(2), at_all_rates(0.5)),
}


def test_each_claim_has_a_unique_name_and_synthetic_studies_of_both_kinds():
    assert len(set(CLAIM_NAMES)) == len(CLAIM_NAMES)
    assert set(CASES) == set(COMPARISONS)


@pytest.mark.parametrize("claim", COMPARISONS)
@pytest.mark.parametrize("supports", [True, False])
def test_claims_are_supported_where_true_and_refuted_where_false(claim: str, supports: bool):
    row = tabulate_claims(make_sources(CASES[claim][0 if supports else 1])).loc[claim]
    assert row["verdict"] == ("supported" if supports else "refuted")
    assert row["ci95_low"] < row["effect"] < row["ci95_high"] or claim == "best_rate_grows"
    assert (row["n_seeds"], row["n_missing"], row["scale"]) == (3, 0, "ratio")
    assert pd.isna(row["seeds_needed"])
    assert ("as claimed" if supports else "against the claim") in row["reading"]


@pytest.mark.parametrize(
    ("claim", "quantity", "first", "second"),
    [
        ("higher_validation_loss", "best_validation_loss", LARGE, SMALL),
        ("more_epochs", "best_epoch", LARGE, SMALL),
        ("nearer_to_init", "distance", LARGE, SMALL),
        ("linear_flattens", "sharpness", LINEAR, LARGE),
        ("linear_goes_further", "distance", LINEAR, LARGE),
    ],
)
def test_interval_matches_the_paired_t_test(claim: str, quantity: str, first: Run, second: Run):
    frames = make_sources(lambda run, name: seed_noise(run, name) * (1 + (7 * run.batch_size + run.seed) % 5))
    rows = frames[1][frames[1]["quantity"] == quantity].drop_duplicates(["setting", "seed"])
    one, other = (np.log(rows[rows["setting"] == run.setting].sort_values("seed")["value"]) for run in (first, second))
    test = stats.ttest_rel(one.to_numpy(), other.to_numpy())
    row = tabulate_claims(frames).loc[claim]
    expected = np.exp([np.mean(one.to_numpy() - other.to_numpy()), *test.confidence_interval(0.95)])
    assert row[["effect", "ci95_low", "ci95_high"]].tolist() == pytest.approx(expected)
    assert (row["verdict"] == "undecided") == (test.pvalue > 0.05 and row["p_value_equivalence"] > 0.05)


def test_t_test_of_three_values_computed_by_hand():
    # Mean 2, sd 1, and the 97.5 % quantile of Student's t with two degrees of freedom is 4.30265.
    mean, low, high, p_value = t_test(np.array([1.0, 2.0, 3.0]))
    assert (mean, low, high) == pytest.approx((2, 2 - 4.30265 / 3**0.5, 2 + 4.30265 / 3**0.5), rel=1e-5)
    assert p_value == pytest.approx(1 - 12**0.5 / 14**0.5)  # of t = √12; P(|t| < x) = x/√(2 + x²)


def test_t_test_of_equal_or_too_few_values():
    assert t_test(np.array([2.0, 2.0])) == (2, 2, 2, 0)
    assert t_test(np.array([0.0, 0.0])) == (0, 0, 0, 1)
    assert t_test(np.array([2.0])) == pytest.approx((2, np.nan, np.nan, np.nan), nan_ok=True)
    assert np.isnan(t_test(np.array([]))).all()


@pytest.mark.parametrize(
    ("low", "high", "greater"),
    [(0.1, 1, "supported"), (-1, -0.1, "refuted"), (-1, 1, "undecided"), (0, 1, "undecided"), (-1, 0, "undecided"),
     (0, 0, "undecided"), (2, 2, "supported"), (-2, -2, "refuted"), (np.nan, np.nan, "undecided")],
)  # fmt: skip
def test_verdict_is_flipped_by_the_opposite_claim(low: float, high: float, greater: str):
    less = {"supported": "refuted", "refuted": "supported", "undecided": "undecided"}[greater]
    assert verdict(low, high, 0.5, "greater", 0.05) == greater
    assert verdict(low, high, 0.5, "less", 0.05) == less
    assert verdict(-high, -low, 0.5, "less", 0.05) == greater


@pytest.mark.parametrize(
    ("low", "high", "p_value", "greater", "equal", "not_greater"),
    [(0.001, 0.04, 0.01, "no relevant difference", "supported", "supported"),  # significant, but too small to matter
     (-0.04, 0.04, 0.01, "no relevant difference", "supported", "supported"),
     (-0.2, 0.2, 0.4, "undecided", "undecided", "undecided"),
     (0.01, 0.2, 0.6, "supported", "undecided", "undecided"),
     (0.06, 0.2, 0.9, "supported", "refuted", "refuted"),
     (-0.2, -0.01, 0.6, "refuted", "undecided", "supported"),
     (-0.2, -0.06, 0.9, "refuted", "refuted", "supported"),
     (np.nan, np.nan, np.nan, "undecided", "undecided", "undecided")],
)  # fmt: skip
def test_verdict_knows_differences_that_do_not_matter(
    low: float, high: float, p_value: float, greater: str, equal: str, not_greater: str
):
    assert verdict(low, high, p_value, "greater", 0.05) == greater
    assert verdict(low, high, p_value, "equal", 0.05) == equal
    assert verdict(low, high, p_value, "not greater", 0.05) == not_greater


def one_sided_p_values(differences: np.ndarray, margin: float) -> np.ndarray:
    """Return the larger p-value of the two one-sided t tests of each row."""
    return np.maximum(
        stats.ttest_1samp(differences, -margin, axis=-1, alternative="greater").pvalue,
        stats.ttest_1samp(differences, margin, axis=-1, alternative="less").pvalue,
    )


def test_equivalence_has_its_level_at_the_edge_of_the_margin_and_power_inside():
    rng = np.random.default_rng(0)
    margin, sd = np.log(1.05), 0.02
    edge = rng.normal(margin, sd, (2000, 5))
    p_values = one_sided_p_values(edge, margin)
    assert [equivalence_p_value(row, margin) for row in edge[:30]] == pytest.approx(p_values[:30].tolist())
    # Three standard errors of 2,000 repetitions.
    assert 0.03 < (p_values < 0.05).mean() < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 2000)
    assert (one_sided_p_values(edge - margin, margin) < 0.05).mean() > 0.9


def test_equivalence_of_equal_or_too_few_values():
    assert equivalence_p_value(np.array([0.01, 0.01]), 0.05) == 0
    assert equivalence_p_value(np.array([0.06, 0.06]), 0.05) == 1
    assert np.isnan(equivalence_p_value(np.array([0.01]), 0.05))


def test_holm_keeps_the_error_over_correlated_true_nulls():
    rng = np.random.default_rng(0)
    differences = rng.normal(size=(2000, 21, 5)) + rng.normal(size=(2000, 1, 5))  # correlation 0.5
    p_values = stats.ttest_1samp(differences, 0, axis=-1).pvalue
    assert (p_values.min(axis=1) < 0.05).mean() > 0.2  # without the adjustment
    smallest = 21 * p_values.min(
        axis=1
    )  # that of Holm's adjusted p-values: all nulls are true, so any rejection is one
    assert 0.01 < (smallest < 0.05).mean() < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 2000)
    for row in (smallest.argmin(), *np.argsort(abs(smallest - 0.05))[:4]):
        adjusted = claims._adjust_holm(pd.Series(p_values[row]))
        assert adjusted.min() == pytest.approx(min(smallest[row], 1))


def test_readings_say_what_holds_after_holm():
    table = tabulate_claims(make_sources(lambda run, name: CASES["more_epochs"][0](run, name)))
    assert table.loc["more_epochs", "holds_after_holm"] == 1
    assert "as claimed, also after Holm's adjustment" in table.loc["more_epochs", "reading"]
    weak = {0: 1.0, 1: 1.5, 2: 2.2}  # of three seeds, p is 0.03
    frames = make_sources(lambda run, name: 1 + (run.batch_size == 128) * weak[run.seed] * (name == "update_norm"))
    row = tabulate_claims(frames).loc["smaller_updates"]
    assert row["p_value"] < 0.05 < row["p_value_holm"]
    assert row[["verdict", "holds_after_holm"]].tolist() == ["refuted", 0]
    assert "against the claim, but not after Holm's adjustment" in row["reading"]


def test_small_but_certain_difference_is_no_relevant_difference():
    row = tabulate_claims(make_sources(of_large("best_epoch", 1.01))).loc["more_epochs"]
    assert row["ci95_low"] > 1
    assert row[["verdict", "holds_after_holm"]].tolist() == ["no relevant difference", 1]
    assert "which is one of at most 5 %" in row["reading"]
    narrow = claims.tabulate(
        *make_sources(of_large("best_epoch", 1.01)),
        small_batch_size=32,
        large_batch_size=128,
        measures=CLASSIFICATION,
        margin=0.005,
    )
    assert narrow.set_index("claim").loc["more_epochs", "verdict"] == "supported"


def test_protocol_names_the_rates_and_the_length():
    protocols = tabulate_claims(make_sources(scale_quantities()))["protocol"]
    assert protocols["more_epochs"] == "fixed rate, at equal steps"
    assert protocols["linear_flattens"] == "linearly scaled rate, at equal steps"
    assert protocols["retuned_equal"] == "retuned at each batch size, at equal steps"


def test_claim_about_equal_steps_is_not_tested_at_another_length():
    table = claims.tabulate(
        *make_sources(at_all_rates(2)),
        small_batch_size=32,
        large_batch_size=128,
        measures=CLASSIFICATION,
        protocol="to convergence",
    ).set_index("claim")
    assert table.loc["worse_at_equal_steps", "verdict"] == "not tested"
    assert "runs are compared to convergence" in table.loc["worse_at_equal_steps", "reading"]
    assert table.loc["retuned_equal", "verdict"] == "refuted"


def test_best_rate_is_selected_on_the_other_seeds_and_judged_by_the_test_loss():
    losses = {  # of seeds 0 to 2
        "bs32-lr0.01": [1.0, 4.0, 4.0],
        "bs32-lr0.04": [3.0, 1.0, 2.0],
        "bs128-lr0.01": [2.0, 2.0, 2.0],
        "bs128-lrtuned": [9.0, 1.0, 1.0],
    }
    rows = [
        {"setting": name, "batch_size": int(name[2:].partition("-")[0]), "learning_rate": float(name[-4:]) if "0" in
         name[-4:] else 0.02, "seed": seed, "status": "converged", "best_validation_loss": loss, "min_train_loss": loss,
         "test_loss": 10 * loss + 1, "device": "cpu"}
        for name, values in losses.items()
        for seed, loss in enumerate(values)
    ]  # fmt: skip
    runs = pd.DataFrame(rows)
    evidence = Evidence(runs, runs, runs, runs, 32, 128)
    # Batch size 32, seed 0: √(4·4) > √(1·2), so 0.04. Seed 1: √(1·4) < √(3·2), so 0.01. Seed 2: √(1·4) > √(3·1), 0.04.
    # Batch size 128, seed 0: √(1·1), tuned. Seeds 1 and 2: √(9·1) > 2, so 0.01.
    expected = [np.log(91 / 31), np.log(21 / 41), np.log(21 / 21)]
    found = retuned_large_over_small(evidence)
    assert found.by_seed.sort_index().tolist() == pytest.approx(expected)
    without = Evidence(runs.drop(columns="test_loss"), runs, runs, runs, 32, 128)
    assert retuned_large_over_small(without).by_seed.sort_index().tolist() == pytest.approx(
        [np.log(9 / 3), np.log(2 / 4), np.log(2 / 2)]
    )
    # A rate that diverged in another seed is not selected.
    diverged = runs.assign(
        status=runs["status"].mask((runs["setting"] == "bs32-lr0.04") & (runs["seed"] == 1), "diverged")
    )
    chosen = retuned_large_over_small(Evidence(diverged, runs, runs, runs, 32, 128)).by_seed.sort_index()
    assert chosen.tolist() == pytest.approx([np.log(91 / 11), np.log(21 / 41), np.log(21 / 41)])


@pytest.mark.parametrize(
    ("device", "verdict", "unit"), [("cpu", "supported", "CPU seconds"), ("A GPU", "refuted", "seconds")]
)
def test_time_of_an_epoch_is_wall_time_on_a_gpu(device: str, verdict: str, unit: str):
    frames = make_sources(scale_quantities(("epoch_cpu_seconds", 128, 0.01, 0.5), ("epoch_seconds", 128, 0.01, 2)))
    frames[0]["device"] = device
    row = tabulate_claims(frames).loc["shorter_epochs"]
    assert row[["verdict", "measure"]].tolist() == [verdict, f"median time of an epoch ({unit})"]


@pytest.mark.parametrize("effect", [0.15, 0.4, 0.9, -0.9])
def test_seeds_needed_is_the_smallest_number_with_a_power_of_80_percent(effect: float):
    n = int(seeds_needed(effect + np.array([-1.0, 0.0, 1.0]), "greater", 0.05))  # sd 1
    power = TTestPower().power
    assert power(abs(effect), n, alpha=0.05) >= 0.8
    assert power(abs(effect), n - 1, alpha=0.05) < 0.8


def test_seeds_needed_of_tiny_effects_and_too_few_values():
    assert seeds_needed(np.array([-1.0, 1.0]), "greater", 0.05) == "more than 1000"
    assert seeds_needed(np.array([-1.0, 1.001]), "greater", 0.05) == "more than 1000"
    assert seeds_needed(np.array([0.0, 0.0]), "greater", 0.05) == "2"  # no relevant difference
    assert seeds_needed(np.array([0.3]), "greater", 0.05) is seeds_needed(np.array([]), "greater", 0.05) is None


@pytest.mark.parametrize("claimed", ["greater", "equal", "not greater"])
def test_equivalence_needs_the_seeds_of_two_one_sided_tests(claimed: str):
    margin, sd = 0.5, 1.0
    n = int(seeds_needed(sd * np.array([-1.0, 0.0, 1.0]), claimed, margin))
    # Both tests have a power of 90 %, since the effect is 0.
    power = TTestPower().power
    assert power(margin / sd, n, alpha=0.05, alternative="larger") >= 0.9
    assert power(margin / sd, n - 1, alpha=0.05, alternative="larger") < 0.9


def test_means_by_epoch_are_over_the_epochs_that_both_runs_of_a_seed_have():
    frames = make_sources(scale_quantities())
    curves = frames[2]
    large, small = (curves["setting"] == run.setting for run in (LARGE, SMALL))
    curves["train_loss"] = curves["epoch"] * np.where(large, 3.0, 1.0)
    # The small batch stops after two epochs, with the large one at three times its loss.
    frames[2] = curves[~(small & (curves["epoch"] > 2))]
    frames[2].loc[large & (frames[2]["epoch"] > 2), "train_loss"] = 1e9
    assert tabulate_claims(frames).loc["slower_descent", ["effect", "ci95_low", "ci95_high"]].tolist() == pytest.approx(
        [3, 3, 3]
    )
    # Intervals in examples end after full steps, those of a large batch a little later.
    later = [*frames[:2], frames[2].assign(epoch=frames[2]["epoch"] + 0.09 * large[frames[2].index]), *frames[3:]]
    assert tabulate_claims(later).loc["slower_descent", "effect"] == pytest.approx(3)
    early = curves["epoch"] == 1  # (1·6 + 2·3) / (1 + 2) in the mean of two epochs
    frames[2].loc[large & early, "train_loss"] = 6.0
    assert tabulate_claims(frames).loc["slower_descent", "effect"] == pytest.approx(4)


def test_midpoint_of_a_gap_is_its_geometric_mean():
    frames = make_sources(scale_quantities())
    for run, value in ((SMALL, 1.0), (LARGE, 9.0), (LINEAR, 2.0)):
        frames[1].loc[frames[1]["setting"] == run.setting, "value"] = value
    table = tabulate_claims(frames)
    for claim in ("linear_closes_gap", "linear_restores_epochs"):
        assert table.loc[claim, ["effect", "ci95_low", "ci95_high"]].tolist() == pytest.approx([2 / 3] * 3)
    frames[1].loc[frames[1]["setting"] == LINEAR.setting, "value"] = 3.0
    for claim in ("linear_closes_gap", "linear_restores_epochs"):  # exactly half of the gap
        assert tabulate_claims(frames).loc[claim, ["effect", "verdict"]].tolist() == [1, "no relevant difference"]


@pytest.mark.parametrize("claim", ["linear_closes_gap", "linear_restores_epochs"])
def test_gap_claims_are_not_tested_without_a_gap(claim: str):
    quantity = {"linear_closes_gap": "best_validation_loss", "linear_restores_epochs": "best_epoch"}[claim]
    row = tabulate_claims(make_sources(scale_quantities((quantity, 128, 0.01, 0.5), (quantity, 128, 0.04, 0.1)))).loc[
        claim
    ]
    assert np.isnan(row["effect"])
    assert row[["verdict", "n_seeds"]].tolist() == ["not tested", 0]
    assert "no gap to close" in row["reading"]


def test_best_other_batch_size_is_selected_on_the_other_seeds():
    frames = make_sources(scale_quantities())
    # On each seed alone the best of the others would be 1; the other seeds choose 64, 128 and 128.
    losses = {32: [4, 4, 4], 64: [8, 1, 2], 128: [1, 16, 3]}
    for size, values in losses.items():
        for seed, loss in zip(SEEDS, values, strict=True):
            mask = (frames[1]["setting"] == f"bs{size}-lr0.08") & (frames[1]["seed"] == seed)
            frames[1].loc[mask & (frames[1]["quantity"] == "best_validation_loss"), "value"] = float(loss)
    # Seed 0: √(1·2) < √(16·3), so 64. Seed 1: √(8·2) > √(1·3), so 128. Seed 2: √(8·1) < √(1·16), so 64.
    expected = np.log([4 / 8, 4 / 16, 4 / 2])
    row = tabulate_claims(frames).loc["smallest_not_best"]
    assert row["effect"] == pytest.approx(np.exp(expected.mean()))
    low, high = stats.ttest_1samp(expected, 0).confidence_interval(0.95)
    assert row[["ci95_low", "ci95_high"]].tolist() == pytest.approx([np.exp(low), np.exp(high)])


def test_batch_size_that_diverged_in_another_seed_is_not_selected():
    value_of = scale_quantities(("best_validation_loss", 64, 0.08, 0.1))  # by far the best, if it does not diverge
    frames = make_sources(value_of, diverges=lambda run: run == Run(64, 0.08, 0))
    row = tabulate_claims(frames).loc["smallest_not_best"]
    # Seed 0 selects 64, which diverged there; seeds 1 and 2 exclude it and select 128.
    assert row[["n_seeds", "n_missing"]].tolist() == [2, 1]
    assert row["effect"] == pytest.approx(1, rel=0.01)
    assert "1 of the 9 runs diverged" in row["reading"]


def test_single_other_batch_size_needs_no_selection():
    chosen = make_study((32, 128))
    frames = make_sources(scale_quantities(("best_validation_loss", 32, 0.08, 2)), chosen)
    one = [frame[frame["seed"] == 0] for frame in frames]
    assert tabulate_claims(one, chosen).loc["smallest_not_best", "effect"] == pytest.approx(2, rel=0.01)
    three = [frame[frame["seed"] == 0] for frame in make_sources(scale_quantities())]
    assert "one seed" in tabulate_claims(three).loc["smallest_not_best", "reading"]


def test_linear_growth_of_the_best_rate_gives_a_factor_of_two():
    chosen = make_study((32, 64, 128), (0.01, 0.02, 0.04))
    row = tabulate_claims(make_sources(best_at({32: 0.01, 64: 0.02, 128: 0.04}), chosen), chosen).loc["best_rate_grows"]
    assert row[["effect", "ci95_low", "ci95_high"]].tolist() == pytest.approx([2, 2, 2])
    assert row["verdict"] == "supported"
    assert "6 of the 9 best rates are on an edge" in row["reading"]


def test_growth_of_the_best_rate_is_the_least_squares_slope():
    chosen = make_study((32, 96, 128), (0.01, 0.04, 0.08))
    best = {32: 0.04, 96: 0.01, 128: 0.08}
    row = tabulate_claims(make_sources(best_at(best), chosen), chosen).loc["best_rate_grows"]
    slope = stats.linregress(np.log2(list(best)), np.log2(list(best.values()))).slope
    assert row["effect"] == pytest.approx(2**slope)


def test_rates_of_only_some_batch_sizes_are_ignored():
    chosen = make_study((32, 64, 128), (0.01, 0.05, 0.08))  # the linear arm adds 0.02 for 64 and 0.04 for 128
    value_of = scale_quantities(("best_validation_loss", 64, 0.02, 0.1), ("best_validation_loss", 128, 0.04, 0.1))
    frames = make_sources(lambda run, name: value_of(run, name) * (1 + run.learning_rate), chosen)
    row = tabulate_claims(frames, chosen).loc["best_rate_grows"]
    assert row[["effect", "verdict"]].tolist() == [1, "no relevant difference"]


def test_lowest_rate_is_best_among_equal_losses():
    chosen = make_study((32, 64), (0.01, 0.02, 0.04))
    rising = best_at({64: 0.04})
    frames = make_sources(lambda run, name: 1.0 if run.batch_size == 32 else rising(run, name), chosen)
    assert tabulate_claims(frames, chosen).loc["best_rate_grows", "effect"] == pytest.approx(4)  # from 0.01 to 0.04


def test_p_values_are_those_of_the_t_test_and_holm_adjusts_them_over_the_tested_claims():
    frames = make_sources(lambda run, _: run.batch_size * (1 + (7 * run.batch_size + run.seed) % 5 / 20))
    rows = frames[1][frames[1]["quantity"] == "distance"].drop_duplicates(["setting", "seed"])
    large, small = (np.log(rows[rows["setting"] == run.setting].sort_values("seed")["value"]) for run in (LARGE, SMALL))
    table = tabulate_claims(frames, make_study(sharpness={"enabled": False}))
    expected = stats.ttest_rel(large.to_numpy(), small.to_numpy()).pvalue
    assert table.loc["nearer_to_init", "p_value"] == pytest.approx(expected)
    tested = table["p_value"].dropna().sort_values()
    assert len(tested) > 2
    assert set(tested.index) == set(table.index[table["n_seeds"] >= 2])
    # Holm 1979: the k-th smallest of m p-values times m − k + 1, made monotone, at most 1.
    factors = np.arange(len(tested), 0, -1)
    adjusted = np.minimum(np.maximum.accumulate(tested.to_numpy() * factors), 1)
    assert ((tested * len(tested)).clip(upper=1) > adjusted).any()  # Bonferroni's method would give other values
    assert table.loc[tested.index, "p_value_holm"].tolist() == pytest.approx(adjusted.tolist())
    assert table.loc[table["p_value"].isna(), "p_value_holm"].isna().all()
    directional = table[table["claimed"].isin(["greater", "less"])]
    assert (directional.loc[directional["verdict"].isin(["supported", "refuted"]), "p_value"] < 0.05).all()
    assert (directional.loc[directional["verdict"] == "undecided", "p_value"] >= 0.05).all()


def test_ties_are_no_relevant_difference():
    table = tabulate_claims(make_sources(lambda *_: 0.3))
    # Without a gap, two are not tested.
    tested = table.loc[COMPARISONS].drop(["linear_closes_gap", "linear_restores_epochs"])
    assert (tested[["effect", "ci95_low", "ci95_high"]] == 1).all(axis=None)
    equal = {"retuned_equal": "supported"}
    assert {name: equal.get(name, "no relevant difference") for name in tested.index} == tested["verdict"].to_dict()
    assert set(table.loc[["linear_closes_gap", "linear_restores_epochs"], "verdict"]) == {"not tested"}


def test_rounding_errors_do_not_break_a_tie():
    frames = make_sources(scale_quantities())
    for run, value in ((SMALL, 5.0), (LARGE, 20.0), (LINEAR, 10.0)):  # log 10 − (log 5 + log 20)/2 is 4e-16
        frames[1].loc[frames[1]["setting"] == run.setting, "value"] = value
    row = tabulate_claims(frames).loc["linear_closes_gap"]
    assert row[["ci95_low", "ci95_high", "verdict"]].tolist() == [1, 1, "no relevant difference"]


def test_equal_ratios_without_spread_are_decided_by_their_sign():
    frames = make_sources(lambda run, _: 3.0 * run.batch_size)
    table = tabulate_claims(frames)
    assert table.loc["higher_validation_loss", ["effect", "ci95_low", "ci95_high"]].tolist() == pytest.approx([4, 4, 4])
    assert table.loc["higher_validation_loss", "verdict"] == "supported"
    assert table.loc["nearer_to_init", "verdict"] == "refuted"


def test_single_seed_is_undecided_with_an_effect():
    table = tabulate_claims([frame[frame["seed"] == 1] for frame in make_sources(of_large("best_epoch", 2))])
    # There is no gap in the loss to close, and the best of the other batch sizes is selected on other seeds.
    assert set(table.loc[table["n_seeds"] == 1, "verdict"]) == {"undecided"}
    assert set(table.loc[table["n_seeds"] == 0, "verdict"]) == {"not tested"}
    row = table.loc["more_epochs"]
    assert row["effect"] == pytest.approx(2, rel=0.01)
    assert np.isnan(row[["ci95_low", "ci95_high"]].astype(float)).all()
    assert row[["n_seeds", "n_missing"]].tolist() == [1, 0]
    assert pd.isna(row["seeds_needed"])
    assert "only seed" in row["reading"]


@pytest.mark.parametrize("claim", [name for name in COMPARISONS if name not in RETUNED])
def test_seed_is_dropped_if_a_compared_run_diverged(claim: str):
    value_of = CASES[claim][0]
    setting = {"smallest_not_best": Run(32, 0.08, 1)}.get(claim, LARGE)
    diverged = Run(setting.batch_size, setting.learning_rate, 1)
    without_seed = tabulate_claims([frame[frame["seed"] != 1] for frame in make_sources(value_of)]).loc[claim]
    row = tabulate_claims(make_sources(value_of, diverges=lambda run: run == diverged)).loc[claim]
    if claim == "best_rate_grows":  # a rate that diverged is only excluded
        assert row["n_seeds"] == 3
        return
    assert row[["n_seeds", "n_missing"]].tolist() == [2, 1]
    assert "1 of the" in row["reading"]
    if claim != "smallest_not_best":  # there the dropped seed is still used for selection
        columns = ["effect", "ci95_low", "ci95_high"]
        assert row[columns].tolist() == without_seed[columns].tolist()


def test_seed_is_dropped_if_a_batch_size_diverged_at_every_rate():
    diverges = lambda run: (run.batch_size, run.seed) == (64, 2)  # noqa: E731
    row = tabulate_claims(make_sources(best_at({32: 0.01, 64: 0.04, 128: 0.04}), diverges=diverges)).loc[
        "best_rate_grows"
    ]
    assert row[["n_seeds", "n_missing"]].tolist() == [2, 1]


@pytest.mark.parametrize("claim", [name for name in COMPARISONS if name not in RETUNED])
def test_seed_is_dropped_if_a_run_is_missing(claim: str):
    frames = make_sources(CASES[claim][0])
    missing = (32, 0.08) if claim == "smallest_not_best" else (128, 0.01)
    if claim == "best_rate_grows":
        masks = [~((frame["batch_size"] == 128) & (frame["seed"] == 1)) for frame in frames]
    else:
        masks = [~((frame["setting"] == Run(*missing, 1).setting) & (frame["seed"] == 1)) for frame in frames]
    row = tabulate_claims([frame[mask] for frame, mask in zip(frames, masks, strict=True)]).loc[claim]
    assert row[["n_seeds", "n_missing"]].tolist() == [2, 1]


@pytest.mark.parametrize("change", [of_large("best_epoch", 2), lambda *_: 0.3], ids=["decided", "ties"])
def test_the_report_shows_missing_numbers_of_claims_as_dashes(change: QuantityFunction, tmp_path: Path):
    table = claims.tabulate(*make_sources(change), small_batch_size=32, large_batch_size=128, measures=CLASSIFICATION)
    write_frame(tmp_path / "claims.csv", table)
    for frame in (table, read_frame(tmp_path / "claims.csv")):  # as in a partial report, and in the report
        cells = [cell for row in preview_table(frame, 24, WORDS).rows for cell in row]
        assert "nan" not in cells
        assert "None" not in cells
        assert "–" in cells


def test_claims_are_not_tested_if_every_run_diverged():
    table = tabulate_claims(make_sources(scale_quantities(), diverges=lambda _: True)).loc[COMPARISONS]
    assert set(table["verdict"]) == {"not tested"}
    assert table["seeds_needed"].isna().all()
    assert (table["n_seeds"] == 0).all()
    assert (table["n_missing"] == 3).all()
    assert table["effect"].isna().all()
    assert table["reading"].str.startswith("Not tested").all()


@pytest.mark.parametrize("value", [0.0, -1.0, np.inf])
def test_seed_is_dropped_if_a_value_has_no_logarithm(value: float):
    frames = make_sources(scale_quantities())
    at = (frames[1]["setting"] == LARGE.setting) & (frames[1]["seed"] == 2) & (frames[1]["quantity"] == "sharpness")
    frames[1].loc[at, "value"] = value
    row = tabulate_claims(frames).loc["sharper_minima"]
    assert row[["n_seeds", "n_missing"]].tolist() == [2, 1]
    assert np.isfinite(row["effect"])


def test_order_of_rows_does_not_matter():
    frames = make_sources(lambda run, name: seed_noise(run, name) * (1 + (7 * run.batch_size + run.seed) % 5))
    shuffled = [frame.sample(frac=1, random_state=place) for place, frame in enumerate(frames)]
    pd.testing.assert_frame_equal(tabulate_claims(shuffled), tabulate_claims(frames), check_exact=True)


def test_runs_that_were_stopped_are_counted():
    frames = make_sources(of_large("best_epoch", 2))
    frames[0].loc[frames[0]["setting"] == LARGE.setting, "status"] = "budget_spent"
    row = tabulate_claims(frames).loc["more_epochs"]
    assert "3 of the 6 runs were ended by their budget, not by training.patience" in row["reading"]
    assert row["verdict"] == "supported"


@pytest.mark.parametrize(
    ("factor", "status", "later", "verdict", "is_finite"),
    [
        (1.1, "converged", 1, "supported", True), (1.1, "budget_spent", 1, "undecided", False),
        (1.0, "converged", 1, "no relevant difference", True), (1.0, "budget_spent", 1, "undecided", False),
        # Without patience all runs are completed, and only a best epoch before the last one is known.
        (1.1, "completed", 0, "undecided", False), (1.1, "completed", 1, "supported", True),
        (1.0, "completed", 0, "undecided", False), (1.0, "completed", 1, "no relevant difference", True),
    ],
)  # fmt: skip
def test_best_epochs_at_the_end_of_a_budget_are_bounds(
    factor: float, status: str, later: int, verdict: str, is_finite: bool
):
    frames = make_sources(lambda run, _: 20 * factor if run.batch_size == 128 else 20.0)
    for frame in frames[:2]:
        frame["status"] = frame["status"].where(frame["setting"] != LARGE.setting, status)
    frames[0]["epochs"] = frames[0]["best_epoch"] + later
    row = tabulate_claims(frames).loc["more_epochs"]
    assert row["verdict"] == verdict
    assert row["effect"] == pytest.approx(factor)
    assert np.isfinite(row["ci95_low"]) == is_finite
    assert pd.isna(row["seeds_needed"])


def test_best_epochs_that_the_budget_cuts_show_no_effect_of_the_batch_size():
    """Where all runs still descend, as in a budget in steps, the best epochs are those of the budget."""
    frames = make_sources(lambda run, _: 8.0 + run.seed / 10 if run.batch_size == 128 else 1.0)
    frames[0]["status"] = "completed"
    frames[0]["epochs"] = frames[0]["best_epoch"]
    row = tabulate_claims(frames).loc["more_epochs"]
    assert row["verdict"] == "not tested"
    assert "every best epoch may be a later one; use a larger training.budget, and training.patience" in row["reading"]


@pytest.mark.parametrize(
    ("cut", "seed_1"), [((), 2.0), (("large",), 2.0), (("small",), 1.0), (("small", "large"), 1.0)]
)  # fmt: skip
def test_a_bound_counts_as_the_ratio_nearest_to_1_that_it_allows(cut: tuple[str, ...], seed_1: float):
    """A larger budget could raise the best epoch of the large batch, or that of the small one above it."""
    frames = make_sources(lambda run, _: 20.0 if run.batch_size == 128 else 10.0)
    settings = [{"small": SMALL, "large": LARGE}[name].setting for name in cut]
    frames[0].loc[frames[0]["setting"].isin(settings) & (frames[0]["seed"] == 1), "status"] = "budget_spent"
    row = tabulate_claims(frames).loc["more_epochs"]
    assert row["effect"] == pytest.approx((2.0 * 2.0 * seed_1) ** (1 / 3))


def test_rows_of_different_numbers_of_epochs_are_not_compared():
    """With `evaluate_every` in steps, a row of the large batch is the mean over more epochs."""
    frames = make_sources(lambda *_: 1.0)
    for frame in frames[2:]:
        small = frame["setting"] == SMALL.setting
        frame["epoch"] = frame["epoch"].where(~small, frame["epoch"] / 4)
    table = tabulate_claims(frames)
    for claim in ("slower_descent", "shorter_moves"):
        assert table.loc[claim, "verdict"] == "not tested"
        assert (
            "bs128 is evaluated every 1 epochs and bs32 every 0.25; give training.evaluate_every in epochs"
            in (table.loc[claim, "reading"])
        )


def test_intervals_that_a_checkpoint_splits_for_one_batch_size_are_left_out():
    """Both move at the same speed, but only the small batch is evaluated after half an epoch too."""
    frames = make_sources(lambda *_: 1.0)
    distance = frames[3]
    first = (distance["setting"] == SMALL.setting) & (distance["epoch"] == 2)
    half = distance[first].assign(epoch=1.5, epoch_distance=0.5 * distance.loc[first, "epoch_distance"])
    distance.loc[first, "epoch_distance"] *= 0.5
    frames[3] = pd.concat([distance, half], ignore_index=True)
    assert tabulate_claims(frames).loc["shorter_moves", "effect"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("chosen", "untested", "reason"),
    [
        (make_study(sharpness={"enabled": False}), {"sharper_minima", "linear_flattens"}, "sharpness"),
        (
            make_study(arms={"linear": {"enabled": False}}),
            {name for name in CLAIM_NAMES if "linear" in name},
            "no arm `linear`",
        ),
        (
            make_study(arms={"linear": {"learning_rates": {32: 0.01, 128: 0.02}}}),
            {name for name in CLAIM_NAMES if "linear" in name},
            "not proportional",
        ),
        (
            make_study(arms={"linear": {"base_batch_size": 128}}),
            {name for name in CLAIM_NAMES if "linear" in name},
            "are the same for batch size 128",
        ),
        (
            make_study(arms={"linear": {"learning_rates": {32: 0.01}}}),
            {name for name in CLAIM_NAMES if "linear" in name},
            "no complete run of batch size 128",
        ),
        (
            make_study((32, 64, 128), (0.01,)),
            {"best_rate_grows", *RETUNED},
            "fewer than (?:two|three) learning rates",
        ),
        (make_study((32,)), set(COMPARISONS), "one batch size"),
    ],
)
def test_untestable_claim_has_a_row_with_the_reason(chosen: Study, untested: set[str], reason: str):
    gaps = scale_quantities(("best_validation_loss", 128, 0.01, 2), ("best_epoch", 128, 0.01, 2))
    table = tabulate_claims(make_sources(gaps, chosen), chosen)
    assert list(table.index) == CLAIM_NAMES
    table = table.loc[COMPARISONS]
    assert set(table.index[table["reading"].str.startswith("Not tested")]) == untested
    rows = table.loc[sorted(untested)]
    assert rows["reading"].str.contains(reason).all()
    assert rows["effect"].isna().all()
    assert set(rows["verdict"]) == {"not tested"}
    assert "not tested" not in set(table.drop(rows.index)["verdict"])
    assert (rows["n_missing"] == 0).all()


def test_compared_batch_sizes_are_set_in_the_config():
    chosen = make_study(
        comparison={
            "fixed_learning_rate": 0.01,
            "high_learning_rate": 0.08,
            "small_batch_size": 64,
            "large_batch_size": 128,
        }
    )
    table = tabulate_claims(
        make_sources(scale_quantities(("distance", 64, 0.01, 10), ("distance", 128, 0.01, 5)), chosen), chosen
    )
    assert table.loc["nearer_to_init", "effect"] == pytest.approx(0.5, rel=0.01)
    assert table.loc["nearer_to_init", "comparison"] == "bs128 against bs64 at learning rate 0.01"


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ((1.5, 1.25, 1.75), "1.5\n1.25 to 1.75"),
        ((3.02, 0.000611, 14950.0), "3.02\n0.0006 to 10000"),
        ((-0.484, -0.9, 0.0), "−0.484\n−0.9 to 0"),
        ((1.05, np.nan, np.nan), "1.05"),
        ((np.nan, np.nan, np.nan), "not tested"),
    ],
)
def test_figure_writes_ratios_in_few_digits(values: tuple[float, float, float], text: str):
    assert figure._numbers(*values) == text


@pytest.mark.parametrize("diverges", [lambda _: False, lambda run: run.batch_size == 128, lambda _: True])
def test_figure_has_a_row_for_every_claim(diverges: Callable[[Run], bool], tmp_path):
    path = tmp_path / "claims.csv"
    write_frame(path, tabulate_claims(make_sources(CASES["more_epochs"][0], diverges=diverges)).reset_index())
    with drawn(figure.draw(read_frame(path)), FiguresConfig()) as page:
        page.savefig(tmp_path / "claims.png")  # computes the layout
        (axes,) = page.axes
        assert len(axes.get_yticklabels()) == len(CLAIMS)
        for text in [*axes.get_yticklabels(), *axes.texts]:
            box = text.get_window_extent()
            assert page.bbox.x0 <= box.x0 < box.x1 <= page.bbox.x1, text.get_text()
