"""Claims about how a training proceeds, on synthetic studies with known answers."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from batchscape.report.claims.dynamics import bound_critical_factor
from batchscape.report.claims.statements import CLAIMS
from batchscape.report.claims.t_test import beyond_p_value, t_test
from batchscape.report.tables import claims
from tests.helpers.claims import DYNAMICS, make_sources, make_study, scale_quantities
from tests.helpers.measures import CLASSIFICATION

TOLERANCE = 0.02
FACTORS = (1, 2, 4, 8)
POINTS = (1, 4)
"""Epochs of 1,000 examples, at which branches begin."""
STUDY = make_study()
SETTING, BATCH_SIZE = "bs32-lr0.01", 32


@pytest.fixture(autouse=True)
def only_these_claims(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the other claims, which take most of the time, unless a test uses `all_claims`."""
    if "all_claims" not in request.fixturenames:
        monkeypatch.setattr(claims, "CLAIMS", [claim for claim in CLAIMS if claim.name in DYNAMICS])


@pytest.fixture
def all_claims() -> None:
    """Let a test have all claims."""


def tabulate(frames: Sequence[pd.DataFrame], **more: object) -> pd.DataFrame:
    table = claims.tabulate(
        *frames,
        **{
            "small_batch_size": 32,
            "large_batch_size": 128,
            "measures": CLASSIFICATION,
            "branching_tolerance": TOLERANCE,
        }
        | more,
    )
    return table.set_index("claim")


def of_seeds(frames: Sequence[pd.DataFrame], count: int) -> list[pd.DataFrame]:
    return [frame[frame["seed"] < count] for frame in frames]


def make_branching(critical: dict[tuple[int, int], float], factors: Sequence[int] = FACTORS) -> pd.DataFrame:
    """Return branches whose excess is linear in the logarithm of the factor, and TOLERANCE at the critical factor.

    Args:
        critical: The critical multiple of the batch size, above 1, by seed and epoch of the point; nan for a point that
            the run did not reach.
        factors: The factors.
    """
    rows = []
    for (seed, epoch), multiple in critical.items():
        lead = {"run": f"{SETTING}-seed{seed}", "setting": SETTING, "batch_size": BATCH_SIZE, "learning_rate": 0.01}
        for factor in factors:
            loss = 2 * (1 + TOLERANCE * np.log(factor) / np.log(multiple))
            row = {**lead, "seed": seed, "status": "converged", "point": f"{epoch}epochs", "factor": factor}
            is_reached = np.isfinite(multiple)
            row |= {"examples": 1000.0 * epoch if is_reached else np.nan, "train_loss": loss}
            rows.append(row | {"branch_status": "completed" if is_reached else "not reached"})
    return pd.DataFrame(rows)


def make_curvature(ratios: Sequence[float], is_adam: bool = False, **changes: object) -> pd.DataFrame:
    """Return curvature of bs128-lr0.08 that is a multiple of the edge at the last weights, one for each seed."""
    others = {"batch_size": 32, "learning_rate": 0.08}, {"batch_size": 128, "learning_rate": 0.01}
    rows = [
        {"batch_size": 128, "learning_rate": 0.08, "seed": seed, "checkpoint": "last", "ratio": ratio}
        for seed, ratio in enumerate(ratios)
    ]
    rows += [{**row, **other, "ratio": 100.0} for row in rows for other in others]
    rows += [{**row, "checkpoint": "init", "ratio": 100.0} for row in rows]
    frame = pd.DataFrame(rows)
    frame["setting"] = [
        f"bs{size}-lr{rate}" for size, rate in zip(frame["batch_size"], frame["learning_rate"], strict=True)
    ]
    edge = {"edge": np.nan, "preconditioned_edge": 38.0} if is_adam else {"edge": 3.8, "preconditioned_edge": np.nan}
    frame = frame.assign(
        status="converged",
        step_batch_size=frame["batch_size"],
        step_learning_rate=frame["learning_rate"],
        eigenvalue_times_rate=frame["ratio"] * (0.5 if is_adam else 3.8),
        preconditioned_times_rate=frame["ratio"] * 38 if is_adam else np.nan,
        not_computed="none",
        **edge,
    )
    return frame.assign(**changes)


def with_distance(frames: Sequence[pd.DataFrame], grow) -> list[pd.DataFrame]:
    """Return sources in which the distance is `grow(updates)`, with 1 % of noise that differs between seeds."""
    history = frames[2]
    noise = 1 + (0.01 + 0.001 * history["seed"]) * (-1.0) ** history["epoch"]
    return [*frames[:2], history.assign(distance=grow(history["step"]) * noise), *frames[3:]]


def with_sharpness(follows: str) -> list[pd.DataFrame]:
    """Return sources in which the order of the sharpness of all settings is that of the rates, or that of the losses.

    The order of the losses is unrelated to that of the rates, and differs between seeds.
    """

    def value_of(run, quantity: str) -> float:
        key = [run.seed, run.batch_size, round(1e6 * run.learning_rate)]
        loss = 1 + np.random.default_rng(key).uniform()
        if quantity == "best_validation_loss":
            return loss
        if quantity == "sharpness":
            return loss if follows == "loss" else 1 / run.learning_rate + run.batch_size / 1000
        return 1.0

    return make_sources(value_of, make_study((16, 32, 64, 128), (0.01, 0.02, 0.04, 0.08)))


GROWING = {(seed, epoch): {1: 2.5 + seed / 10, 4: 6.0}[epoch] for seed in range(3) for epoch in POINTS}
FALLING = {(seed, epoch): {1: 6.0, 4: 2.5 + seed / 10}[epoch] for seed in range(3) for epoch in POINTS}
NOISE = 100.0  # plus the seed, in `make_sources`


def at_noise_scale(factor: float) -> pd.DataFrame:
    """Return branches whose critical batch size is `factor` times the noise scale."""
    return make_branching(
        {(seed, epoch): factor * (1 + epoch / 500) * NOISE / BATCH_SIZE for seed in range(3) for epoch in POINTS}
    )


SOURCES = make_sources(scale_quantities())
# Sources that support each claim, and that refute it.
CASES = {
    "noise_scale_predicts": (
        (SOURCES, {"branching": at_noise_scale(1.1)}),
        (SOURCES, {"branching": at_noise_scale(2.4)}),
    ),
    "critical_batch_grows": (
        (SOURCES, {"branching": make_branching(GROWING)}),
        (SOURCES, {"branching": make_branching(FALLING)}),
    ),
    "edge_of_stability": (
        (SOURCES, {"curvature": make_curvature([1.04, 1.02, 1.05])}),
        (SOURCES, {"curvature": make_curvature([0.5, 0.51, 0.49])}),
    ),
    "logarithmic_distance": (
        (with_distance(SOURCES, np.log), {}),
        (with_distance(SOURCES, np.sqrt), {}),
    ),
    "sharpness_follows_rate": ((with_sharpness("rate"), {}), (with_sharpness("loss"), {})),
}


def test_all_claims_about_the_dynamics_have_cases():
    assert set(CASES) == set(DYNAMICS)


@pytest.mark.parametrize("claim", CASES)
@pytest.mark.parametrize("supports", [True, False], ids=["true", "false"])
def test_claims_are_supported_where_true_and_refuted_where_false(claim: str, supports: bool):
    frames, more = CASES[claim][0 if supports else 1]
    row = tabulate(frames, **more).loc[claim]
    assert row["verdict"] == ("supported" if supports else "refuted"), row["reading"]
    assert row["ci95_low"] < row["effect"] < row["ci95_high"]
    assert row[["n_seeds", "n_missing"]].tolist() == [3, 0]
    assert ("as claimed" if supports else "against the claim") in row["reading"]


@pytest.mark.parametrize("claim", CASES)
@pytest.mark.parametrize("n_seeds", [1, 2])
def test_one_seed_decides_nothing_and_two_give_an_interval(claim: str, n_seeds: int):
    frames, more = CASES[claim][0]
    few = {name: frame[frame["seed"] < n_seeds] for name, frame in more.items()}
    row = tabulate(of_seeds(frames, n_seeds), **few).loc[claim]
    assert row[["n_seeds", "n_missing"]].tolist() == [n_seeds, 0]
    assert np.isfinite(row["effect"])
    assert np.isfinite(row["ci95_low"]) == (n_seeds == 2)
    if n_seeds == 1:
        assert row["verdict"] == "undecided"
        assert "only seed" in row["reading"]


def test_seeds_that_do_not_determine_a_ratio_are_said_not_to():
    frames = of_seeds(SOURCES, 2)
    critical = {(seed, epoch): {0: 2.5, 1: 7.0}[seed] for seed in range(2) for epoch in POINTS}
    row = tabulate(frames, branching=make_branching(critical)).loc["noise_scale_predicts"]
    assert row["verdict"] == "undecided"
    assert row["ci95_low"] < 1e-2 * row["effect"] < 1e2 * row["effect"] < row["ci95_high"]
    assert row["reading"].startswith(
        f"The critical batch size by branching is {row['effect']:.3g} times the noise scale (95 % interval wider than "
        "a factor of 100 in both directions, 2 seeds): undecided, because these seeds do not tell whether it is below "
        f"or above 1; {row['seeds_needed']} seeds would be needed"
    )


@pytest.mark.parametrize("claim", DYNAMICS)
def test_claims_are_not_tested_if_every_run_diverged(claim: str):
    frames = make_sources(scale_quantities(), diverges=lambda _: True)
    branching = make_branching(GROWING).assign(status="diverged", branch_status="diverged", train_loss=np.nan)
    row = tabulate(frames, curvature=make_curvature([1.0, 1.0], status="diverged"), branching=branching).loc[claim]
    assert row["verdict"] == "not tested"
    assert row["reading"].startswith("Not tested: ")
    assert np.isnan(row["effect"])


@pytest.mark.usefixtures("all_claims")
def test_claims_without_their_analysis_are_not_tested_and_others_do_not_change():
    without = tabulate(SOURCES)
    for claim, key in (
        ("edge_of_stability", "curvature.enabled"),
        ("critical_batch_grows", "branching.enabled"),
        ("noise_scale_predicts", "branching.enabled"),
    ):
        assert without.loc[claim, "verdict"] == "not tested"
        assert without.loc[claim, "reading"].startswith(f"Not tested: {key} is false")
    complete = tabulate(SOURCES, curvature=make_curvature([1, 2, 3]), branching=make_branching(GROWING))
    same = [name for name in without.index if name not in DYNAMICS]
    columns = ["effect", "ci95_low", "ci95_high", "p_value", "verdict"]
    pd.testing.assert_frame_equal(without.loc[same, columns], complete.loc[same, columns])
    # Holm's method counts them: with more claims, no adjusted p-value is smaller.
    assert (complete.loc[same, "p_value_holm"].dropna() >= without.loc[same, "p_value_holm"].dropna()).all()


# The critical batch size


def test_critical_factor_is_interpolated_and_bounded_outside_of_the_range():
    factors = np.array([1, 2, 4, 8])

    def bounds(*excess: float) -> list[float]:
        return np.exp(bound_critical_factor(factors, np.array(excess), 0.02)).tolist()

    assert bounds(0, 0.01, 0.03, 0.2) == pytest.approx([8**0.5, 8**0.5])  # half-way between 2 and 4
    assert bounds(0, 0.01, 0.02, 0.01) == pytest.approx([8, np.inf])  # at the tolerance is within
    assert bounds(0, 0.04, 0.01, 0.01) == pytest.approx([0, 2**0.5])  # the first crossing counts
    assert bounds(0, 0.01, np.inf, np.inf) == pytest.approx([2, 4])
    assert bounds(0, np.inf, np.inf, np.inf) == pytest.approx([0, 2])


def test_growth_is_that_of_the_interpolated_critical_batch_size_of_each_seed():
    row = tabulate(SOURCES, branching=make_branching(GROWING)).loc["critical_batch_grows"]
    logs = np.log([6 / 2.5, 6 / 2.6, 6 / 2.7])
    test = t_test(logs)
    assert row[["effect", "ci95_low", "ci95_high"]].tolist() == pytest.approx(np.exp(test[:3]).tolist())
    assert row["p_value"] == pytest.approx(stats.ttest_1samp(logs, 0).pvalue)
    assert "bounds" not in row["reading"]
    assert row["comparison"] == "bs32-lr0.01: last against first point"


def test_critical_batch_sizes_beyond_the_factors_count_as_the_nearest_to_no_growth():
    # Beyond 8 at the last point of all seeds: the ratio is at least 8/first.
    beyond = {(seed, epoch): {1: 2.5 + seed / 10, 4: 1e9}[epoch] for seed in range(3) for epoch in POINTS}
    row = tabulate(SOURCES, branching=make_branching(beyond)).loc["critical_batch_grows"]
    assert row["effect"] == pytest.approx(np.exp(np.mean(np.log([8 / 2.5, 8 / 2.6, 8 / 2.7]))))
    assert np.isnan(row["p_value_equivalence"])
    assert "3 of 3 ratios are bounds" in row["reading"]
    # Beyond 8 at both points of one seed: nothing is known, which counts as no growth.
    both = beyond | {(0, 1): 1e9}
    row = tabulate(SOURCES, branching=make_branching(both)).loc["critical_batch_grows"]
    assert row["effect"] == pytest.approx(np.exp(np.mean(np.log([1, 8 / 2.6, 8 / 2.7]))))
    # Of all seeds, at either end: not tested, rather than no relevant difference.
    for multiple in (1e9, 1.2):
        nothing = make_branching(dict.fromkeys(beyond, multiple))
        row = tabulate(SOURCES, branching=nothing).loc["critical_batch_grows"]
        assert row["verdict"] == "not tested"
        assert "set factors that enclose it" in row["reading"]


def test_equal_bounds_have_no_interval():
    # At least 4 in each seed: the spread of the true ratios is not known.
    bounds = {(seed, epoch): {1: 2.0, 4: 1e9}[epoch] for seed in range(3) for epoch in POINTS}
    row = tabulate(SOURCES, branching=make_branching(bounds)).loc["critical_batch_grows"]
    assert row["effect"] == pytest.approx(4)
    assert row["verdict"] == "undecided"
    assert np.isnan(row[["ci95_low", "p_value"]].astype(float)).all()
    assert "in each of 3 seeds, as a bound, so there is no interval" in row["reading"]
    assert pd.isna(row["seeds_needed"])


def test_points_that_a_run_did_not_reach_are_left_out():
    reached = {(seed, epoch): {1: 2.5, 2: 4.0 + seed, 4: np.nan}[epoch] for seed in range(3) for epoch in (1, 2, 4)}
    row = tabulate(SOURCES, branching=make_branching(reached)).loc["critical_batch_grows"]
    assert row["effect"] == pytest.approx(np.exp(np.mean(np.log([4 / 2.5, 5 / 2.5, 6 / 2.5]))))
    only_first = {(seed, epoch): {1: 2.5, 4: np.nan}[epoch] for seed in range(3) for epoch in POINTS}
    assert (
        "no run reached two points"
        in tabulate(SOURCES, branching=make_branching(only_first)).loc["critical_batch_grows", "reading"]
    )
    one_seed_less = GROWING | {(2, 4): np.nan}
    row = tabulate(SOURCES, branching=make_branching(one_seed_less)).loc["critical_batch_grows"]
    assert row[["n_seeds", "n_missing"]].tolist() == [2, 1]


def test_seeds_that_do_not_branch_are_not_missing():
    branching = make_branching({key: value for key, value in GROWING.items() if key[0] < 2})
    row = tabulate(SOURCES, branching=branching).loc["critical_batch_grows"]
    assert row[["n_seeds", "n_missing"]].tolist() == [2, 0]


def test_noise_scale_is_that_of_the_run_at_the_point():
    history = SOURCES[2]
    of_run = history["setting"] == SETTING
    # Measured at the first, second and fourth evaluation; at the third it is interpolated in the logarithms.
    noise = history["epoch"].map({1: 10.0, 2: 40.0, 3: np.nan, 4: 80.0}).where(of_run, 1e6)
    frames = [*SOURCES[:2], history.assign(noise_scale=noise), *SOURCES[3:]]
    critical = {(seed, epoch): 3.0 + seed / 10 for seed in range(3) for epoch in (1, 3)}
    row = tabulate(frames, branching=make_branching(critical)).loc["noise_scale_predicts"]
    third = np.exp(np.interp(np.log(3), np.log([2, 4]), np.log([40, 80])))
    expected = [np.log(32 * (3 + seed / 10)) - np.log([10, third]).mean() for seed in range(3)]
    assert row["effect"] == pytest.approx(np.exp(np.mean(expected)))
    useless = [*SOURCES[:2], history.assign(noise_scale=-1.0), *SOURCES[3:]]
    row = tabulate(useless, branching=make_branching(critical)).loc["noise_scale_predicts"]
    assert "no noise scale of the runs that branch is positive and finite" in row["reading"]


def test_bounds_of_the_critical_batch_size_never_show_that_the_noise_scale_predicts_it():
    # At least 8·32, with a noise scale of 100: at least a factor of 2.5.
    beyond = make_branching(dict.fromkeys(GROWING, 1e9))
    row = tabulate(SOURCES, branching=beyond).loc["noise_scale_predicts"]
    assert row["effect"] == pytest.approx(np.exp(np.mean(np.log(256 / np.array([100, 101, 102])))))
    assert row["verdict"] == "refuted"
    history = SOURCES[2].assign(noise_scale=300.0)  # above the range, as the critical batch size is: both may be equal
    row = tabulate([*SOURCES[:2], history, *SOURCES[3:]], branching=beyond).loc["noise_scale_predicts"]
    assert row["verdict"] == "not tested"


# Edge of stability


def test_edge_is_compared_at_the_last_weights_of_the_largest_batch_and_its_highest_constant_rate():
    ratios = [0.9, 1.1, 1.2]
    for is_adam in (False, True):
        row = tabulate(SOURCES, curvature=make_curvature(ratios, is_adam)).loc["edge_of_stability"]
        expected = np.exp(t_test(np.log(ratios))[:3])
        assert row[["effect", "ci95_low", "ci95_high"]].tolist() == pytest.approx(expected.tolist())
        assert row["comparison"] == "bs128 at learning rate 0.08, the last weights"
        assert "these have 13 % of the examples" in row["reading"]  # 128 of 1,000


def test_full_batches_have_no_caveat():
    curvature = make_curvature([1.01, 1.02])
    frames = [*SOURCES[:2], SOURCES[2].assign(examples=128 * SOURCES[2]["epoch"]), *SOURCES[3:]]
    assert "full batches" not in tabulate(frames, curvature=curvature).loc["edge_of_stability", "reading"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"step_learning_rate": 1e-5}, "no run of curvature.settings ends at a constant learning rate"),
        ({"step_batch_size": 512}, "no run of curvature.settings ends at a constant learning rate"),
        ({"edge": np.nan}, "the edge of stability of this optimizer is not known"),
        ({"not_computed": "no second derivative"}, "there is no Hessian: no second derivative"),
    ],
)
def test_edge_is_not_tested_without_a_known_edge(changes: dict[str, object], reason: str):
    row = tabulate(SOURCES, curvature=make_curvature([1.0, 1.0], **changes)).loc["edge_of_stability"]
    assert row["verdict"] == "not tested"
    assert reason in row["reading"]


@pytest.mark.usefixtures("all_claims")
def test_equality_that_is_refuted_after_holm_is_refuted_beyond_the_margin():
    # Near the margin of 1.25: certainly not 1, but hardly beyond the margin.
    ratios = [1.29, 1.31, 1.33]
    row = tabulate(SOURCES, curvature=make_curvature(ratios)).loc["edge_of_stability"]
    beyond = stats.ttest_1samp(np.log(ratios), np.log(1.25)).pvalue
    assert row["p_value_holm"] < 0.05
    assert row["p_value"] < beyond < 0.05
    assert row[["verdict", "holds_after_holm"]].tolist() == ["refuted", 0]
    assert "where equal means within a factor of 1.25, but not after Holm's adjustment" in row["reading"]


def test_p_value_beyond_the_margin_agrees_with_the_interval():
    rng = np.random.default_rng(0)
    for _ in range(200):
        values = rng.normal(rng.uniform(-2, 2), 1, 4)
        test = t_test(values)
        is_outside = test.ci95_low > 0.5 or test.ci95_high < -0.5
        assert (beyond_p_value(values, 0.5) < 0.05) == is_outside
    assert beyond_p_value(np.array([0.1, 0.2]), 0.5) == 1
    assert np.isnan(beyond_p_value(np.array([0.1]), 0.5))


# Distance


def test_distance_is_compared_by_the_squared_errors_of_both_fits():
    row = tabulate(with_distance(SOURCES, np.log)).loc["logarithmic_distance"]
    assert row["comparison"] == "power law against logarithm, bs32, bs64, bs128 at learning rate 0.01"
    assert row["effect"] > 1
    diverged = make_sources(scale_quantities(), diverges=lambda run: (run.batch_size, run.seed) == (64, 1))
    row = tabulate(with_distance(diverged, np.log)).loc["logarithmic_distance"]
    assert row[["n_seeds", "n_missing"]].tolist() == [2, 1]
    short = [*SOURCES[:2], SOURCES[2][SOURCES[2]["epoch"] <= 2], *SOURCES[3:]]
    assert tabulate(short).loc["logarithmic_distance", "verdict"] == "not tested"


# Sharpness


def test_difference_of_correlations_is_the_mean_over_seeds_of_kendalls_tau():
    frames = with_sharpness("rate")
    table = tabulate(frames)
    row = table.loc["sharpness_follows_rate"]
    sharpness = frames[1][frames[1]["quantity"] == "sharpness"].drop_duplicates(["setting", "seed"])
    paired = sharpness.merge(frames[0][["setting", "seed", "best_validation_loss"]], on=["setting", "seed"])
    expected = [
        abs(stats.kendalltau(rows["value"], rows["learning_rate"]).statistic)
        - abs(stats.kendalltau(rows["value"], rows["best_validation_loss"]).statistic)
        for _, rows in paired.groupby("seed")
    ]
    test = t_test(np.array(expected))
    assert row[["effect", "ci95_low", "ci95_high", "p_value"]].tolist() == pytest.approx(list(test))
    assert row[["scale", "margin"]].tolist() == ["difference", 0.1]
    assert (
        row["comparison"]
        == f"{sharpness['setting'].nunique()} settings with {sharpness['learning_rate'].nunique()} learning rates"
    )
    assert set(table["scale"]) == {"ratio", "difference"}


def test_correlation_needs_settings_and_rates():
    few = make_study((32, 64), (0.01,), arms={"linear": {"enabled": False}, "sqrt": {"enabled": False}})
    row = tabulate(make_sources(scale_quantities(), few), large_batch_size=64).loc["sharpness_follows_rate"]
    assert row["verdict"] == "not tested"
    assert "5 settings with 3 rates are needed" in row["reading"]
    frames = with_sharpness("rate")
    frames[0].loc[frames[0]["seed"] == 1, "best_validation_loss"] = np.nan
    row = tabulate(frames).loc["sharpness_follows_rate"]
    assert row[["n_seeds", "n_missing"]].tolist() == [2, 1]


def test_order_of_rows_does_not_matter():
    more = {"curvature": make_curvature([0.9, 1.1, 1.2]), "branching": make_branching(GROWING)}
    frames = with_sharpness("rate")
    shuffled = [frame.sample(frac=1, random_state=place) for place, frame in enumerate(frames)]
    mixed = {name: frame.sample(frac=1, random_state=5) for name, frame in more.items()}
    pd.testing.assert_frame_equal(tabulate(shuffled, **mixed), tabulate(frames, **more), check_exact=True)
