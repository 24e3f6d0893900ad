"""The sentences below the figures follow the tables, whichever way their numbers point."""

import re

import numpy as np
import pandas as pd
import pytest

from batchscape.report.chapters import CAPTIONS, CHAPTERS
from batchscape.report.findings import describe_findings
from batchscape.report.summary import summarize
from batchscape.report.tables import best_lr, claims, lr_grid, recommendation
from batchscape.study.registry import FIGURES
from tests.helpers.claims import CLAIM_NAMES, make_sources, make_study, scale_quantities
from tests.helpers.measures import CLASSIFICATION, METRICS, WORDS
from tests.helpers.scenarios import SCENARIOS, load_scenario
from tests.helpers.tables import synthetic_runs

RATE = 0.01
ENDS = (("low", -1), ("high", 1))


def claims_with_ratio(factor: float) -> pd.DataFrame:
    """Return the claims of a study where the quantities of the large batch are `factor` times those of the small."""
    chosen = make_study()
    changes = [(name, 128, RATE, factor) for name in ("update_norm", "distance", "sharpness", "epoch_distance")]
    return claims.tabulate(
        *make_sources(scale_quantities(*changes), chosen),
        small_batch_size=32,
        large_batch_size=128,
        measures=CLASSIFICATION,
    )


@pytest.mark.parametrize(
    ("factor", "ratio", "verdict"),
    [(1.19, "1.19", "against the claim"), (0.8, "0.8", "as claimed"), (1.001, "1", "no relevant difference")],
    ids=["larger", "smaller", "equal"],
)
def test_figure_of_update_norms_reports_the_ratio_and_the_verdict_of_its_claim(factor: float, ratio: str, verdict: str):
    (found,) = describe_findings("update_norms", {"claims": claims_with_ratio(factor)}, RATE, WORDS)
    assert found.startswith("bs128 against bs32 at learning rate 0.01: The median update is ")
    assert float(re.search(r"is ([\d.]+) times as long", found)[1]) == pytest.approx(float(ratio), rel=0.01)
    assert f": {verdict}" in found


def test_untested_claims_give_no_findings():
    untested = claims.tabulate(
        *make_sources(scale_quantities(), make_study(), lambda _: True),
        small_batch_size=32,
        large_batch_size=128,
        measures=CLASSIFICATION,
    )
    assert all(
        describe_findings(name, {"claims": untested}, RATE, WORDS) == [] for name in CAPTIONS if name != "claims"
    )
    assert describe_findings("claims", {"claims": untested}, RATE, WORDS) == [
        f"0 of {len(untested)} claims could be tested: 0 supported, 0 refuted, 0 no relevant difference, 0 undecided."
    ]


def test_noise_scales_are_compared_over_the_epochs_that_all_seeds_have():
    """Each seed has a constant noise scale, 10 and 100; the first one ends after the second epoch."""
    table = pd.DataFrame(
        {"setting": "bs32-lr0.01", "batch_size": 32, "learning_rate": RATE, "epoch": [1, 2, 4], "n_seeds": [2, 2, 1]}
    ).assign(noise_scale_mean=[55.0, 55.0, 100.0])
    assert describe_findings("noise_scale", {"noise_scale": table}, RATE, WORDS) == [
        "Ratio of the noise scale at the last evaluation that all seeds have to that at the first one: 1 for batch "
        "size 32."
    ]


def test_captions_name_existing_claims():
    assert {claim for caption in CAPTIONS.values() for claim in caption.claims} <= set(CLAIM_NAMES)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_findings_are_sentences_with_finite_numbers_in_every_scenario(scenario: str):
    _, frames = load_scenario(scenario)
    tables = {name.removeprefix("tables/"): frame for name, frame in frames.items() if name.startswith("tables/")}
    for figure in FIGURES:
        for sentence in describe_findings(figure, tables, RATE, WORDS):
            assert sentence.endswith(".")
            assert not re.search(r"\bnan\b|–|∞", sentence), sentence
        assert describe_findings(figure, {}, RATE, WORDS) == []


def two_batch_sizes(**columns: object) -> pd.DataFrame:
    """Return a table of two batch sizes at the fixed rate."""
    lead = {"setting": ["bs32-lr0.01", "bs64-lr0.01"], "batch_size": [32, 64], "learning_rate": RATE}
    return pd.DataFrame({**lead, **columns})


CASES = {
    "distance_over_time": (
        "distance_log_fit",
        two_batch_sizes(r2_difference_mean=[-0.1, 0.1], log_r2_mean=[0.8, 0.9], power_r2_mean=[0.9, 0.8]),
        "better than the logarithm for 1 of 2 batch sizes: R² 0.800 to 0.900",
    ),
    "noise_scale": (
        "noise_scale",
        pd.concat(
            [
                two_batch_sizes(epoch=epoch, noise_scale_mean=values, n_seeds=3)
                for epoch, values in ((1, [10, 20]), (4, [5, 60]))
            ]
        ),
        "to that at the first one: 0.5 for batch size 32, 3 for batch size 64.",
    ),
    "branching": (
        "branching",
        pd.DataFrame(
            {"setting": "s", "epoch": [1, 4, 16], "critical_batch": [64, 256, 128], "edge": ["low", "high", "none"]}
        ).assign(critical_batch_ci95_low=[np.nan, np.nan, 64], critical_batch_ci95_high=[np.nan, np.nan, 256]),
        "The critical batch size of s is at most 64 after epoch 1, at least 256 after epoch 4, 128 after epoch 16 "
        "(95 % interval 64 to 256).",
    ),
    "curvature": (
        "curvature",
        two_batch_sizes(
            checkpoint="last",
            **{"eigenvalue_times_rate_mean": [0.5, 1.9], "batch_sharpness_times_rate_mean": np.nan, "edge_mean": 2.0},
            **dict.fromkeys(("preconditioned_times_rate_mean", "preconditioned_edge_mean"), np.nan),
        ),
        "top eigenvalue times the learning rate is 0.5 for bs32-lr0.01, 1.9 for bs64-lr0.01; the edge is 2.",
    ),
    "distance_by_layer": (
        "distance",
        pd.concat(
            [
                two_batch_sizes(layer=layer, distance_mean=values)
                for layer, values in (("all layers", [2, 3]), ("conv", [2, 1]), ("output", [1, 2]))
            ]
        ),
        "is 1.5 times that of 32 over all layers; for single layers, between 0.5 (conv) and 2 (output) times.",
    ),
    "gradient_alignment": (
        "gradient_alignment",
        pd.concat(
            [
                two_batch_sizes(checkpoint="best", gradient_batch=size, gradient_norm_mean=values)
                for size, values in ((1, [1, 2]), (4, [0.5, 1.8]))
            ]
        ),
        "of 4 examples to that of one example: 0.5 to 0.9 at best. Without any alignment it would be 0.5.",
    ),
    "steps_to_target": (
        "steps_to_target",
        two_batch_sizes(target="loss", target_value=0.1, is_best=1, steps_mean=[100, 120]),
        "Batch size 64 takes 1.2 times the steps of batch size 32; perfect scaling would take 0.5 times as many.",
    ),
    "tolerance": (
        "tolerance",
        two_batch_sizes(width=[4.0, 2.5], low_end=["inside", "edge"], high_end="inside"),
        "the highest to the lowest good learning rate: 4 for batch size 32, at least 2.5 for batch size 64.",
    ),
    "interpolation": (
        "interpolation",
        pd.DataFrame({"first": "a", "second": "b", "alpha": [0, 0.5, 1], "train_loss_mean": [1, 3, 2]}),
        "Between a and b the highest training loss is 1.5 times that of the end with the higher loss",
    ),
    "landscape": (
        "landscape",
        pd.DataFrame({"run": list("aabb"), "direction_seed": 0, "x": [0, 1] * 2, "y": 0, "loss": [1, 2, 2, 1]}),
        "In 1 of 2 planes the lowest point is not at the center.",
    ),
    "curves_scaled_lr": (
        "scaled_lr",
        two_batch_sizes(arm=["fixed", "linear"], quantity="best_validation_loss", n_diverged=[0, 2]),
        "Diverged runs: 0 in the arm fixed, 2 in the arm linear.",
    ),
    "lr_search": (
        "tuned_lr",
        two_batch_sizes(tuned_learning_rate=[0.1, 0.05], validation_loss=0.1),
        "is 0.5 times that of batch size 32; linear scaling would be 2 times, square-root scaling 1.41 times.",
    ),
    "devices": (
        "devices",
        pd.DataFrame({"batch_size": [32, 32, 64, 64], "devices": [1, 2] * 2, "speedup": [1, 0.5, 1, 1.5]}),
        "On 2 devices the speedup is 0.5 for batch size 32, 1.5 for batch size 64.",
    ),
    "trajectory": (
        "trajectory",
        pd.DataFrame({"run": ["a", "b"], "explained_variance_x": [0.6, 0.7], "explained_variance_y": [0.1, 0.2]}),
        "The planes explain 70 to 90 % of the variance.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("figure", CASES)
def test_measured_values_are_reported_with_their_numbers(figure: str):
    table, frame, expected = CASES[figure]
    (found,) = describe_findings(figure, {table: frame}, RATE, WORDS)
    assert expected in found


def test_steps_of_the_first_of_several_targets_are_compared():
    first = two_batch_sizes(target="accuracy", target_value=0.95, is_best=1, steps_mean=[100, 120])
    second = two_batch_sizes(target="loss", target_value=0.1, is_best=1, steps_mean=[100, 90])
    (found,) = describe_findings("steps_to_target", {"steps_to_target": pd.concat([first, second])}, RATE, WORDS)
    assert found.startswith("To the first of 2 targets, accuracy 0.95, batch size 64 takes 1.2 times the steps of")


def test_front_and_the_last_doubling_are_described_for_the_first_target():
    ratios = {"steps_ratio": [np.nan, 0.9], "examples_ratio": [np.nan, 1.8], "time_ratio": [np.nan, 0.8]}
    first = two_batch_sizes(target="loss", target_value=0.1, is_pareto=[1, 0], **ratios)
    front, doubling = describe_findings(
        "frontier", {"frontier": pd.concat([first, first.assign(target="accuracy")])}, RATE, WORDS
    )
    assert front == "On the Pareto front of time and examples: batch size 32."
    assert doubling == (
        "From batch size 32 to 64, a doubling multiplies the steps by 0.9, the examples by 1.8 and the time by 0.8."
    )


@pytest.mark.parametrize("figure", ["sharpness", "interpolation", "landscape", "trajectory", "gradient_alignment"])
def test_number_of_examples_of_an_analysis_of_the_loss_is_stated(figure: str):
    _, frames = load_scenario("plain")
    found = describe_findings(figure, {figure: frames[f"tables/{figure}"].assign(examples=4096)}, RATE, WORDS)
    assert f"Computed over 4,096 training {WORDS.examples}." in found


def test_titles_and_introductions_state_no_results():
    texts = [text for chapter in CHAPTERS for text in (chapter.title, chapter.about)]
    texts += [caption.title for caption in CAPTIONS.values()]
    stated = re.compile(r"[Ll]arger batch(es)? (then )?(make|move|end|save|need|find)s?\b|smaller (steps|updates)")
    assert [text for text in texts if stated.search(text)] == []


# The tuned rates.


def tuned_rate_warnings(tuned: list[float | None], constant: list[float | None]) -> list[str]:
    """Return the warnings about the tuned rate of batch size 64, given the losses of its seeds at either rate."""
    runs = synthetic_runs({(32, 0.1): [0.1] * len(tuned), (64, 0.1): constant, (64, 0.5): tuned})
    runs.loc[runs["learning_rate"] == 0.5, "setting"] = "bs64-lrtuned"
    found = pd.DataFrame(
        {"batch_size": [32, 64], "tuned_learning_rate": [0.1, 0.5], "validation_loss": 0.2, "edge": "none"}
    )
    table = recommendation.tabulate(runs, best_lr.tabulate(lr_grid.tabulate(runs, metrics=METRICS)), metrics=METRICS)
    return [
        reason
        for reason in summarize(table, runs.assign(epochs=10), WORDS, found).reasons
        if "its tuned rate" in reason
    ]


def test_tuned_rate_worse_than_a_constant_one_is_reported_with_both_losses():
    (sentence,) = tuned_rate_warnings([0.24, 0.26, 0.3], [0.04, 0.05, 0.06])
    assert "batch size 64 trains worse at its tuned rate, 0.5, than at 0.1, its best constant rate" in sentence
    assert (
        "0.267 ± 0.031 against 0.050 ± 0.010 nats, a difference of 0.217 (95 % interval 0.165 to 0.268, paired by seed)"
        in sentence
    )


@pytest.mark.parametrize(
    ("tuned", "constant", "sentences"),
    [
        ([0.1, 0.2, 0.5], [0.04, 0.05, 0.06], 0),  # higher, but the interval contains 0
        ([0.051, 0.061, 0.072], [0.04, 0.05, 0.06], 1),  # less than the spread, but in every seed
        ([0.03, 0.04, 0.05], [0.04, 0.05, 0.06], 0),
        ([0.03, None, 0.05], [0.04, 0.05, 0.06], 1),
        ([0.06], [0.05], 0),
        ([0.05], [None], 0),  # nothing to compare it with
    ],
    ids=["within the interval", "beyond the interval", "better", "diverged", "one seed", "no constant rate"],
)
def test_tuned_rate_has_a_warning_only_if_it_is_worse_beyond_the_interval(tuned: list, constant: list, sentences: int):
    assert len(tuned_rate_warnings(tuned, constant)) == sentences


def test_batch_schedule_is_described_beside_the_critical_batch_sizes():
    shares = {"steps_saved": 0.452, "steps_saved_to_loss": 0.4, "loss_ratio": 1.002}
    ends = {f"{name}_ci95_{end}": value + sign * 0.1 for name, value in shares.items() for end, sign in ENDS}
    row = {"base_setting": "s", "stages": "64 from 9 examples", "n_seeds": 2, **shares, **ends}
    rows = pd.DataFrame([row, row | {"stages": "none"}, row | {"n_seeds": 0}, row | dict.fromkeys(ends, np.nan)])
    negative = pd.DataFrame([row | dict.fromkeys(ends, np.nan) | {"loss_ratio": np.nan}])
    (sentence,) = describe_findings("branching", {"batch_schedule": negative}, RATE, WORDS)
    assert sentence.endswith("40 % of those to the same validation loss.")
    assert describe_findings("branching", {"batch_schedule": rows}, RATE, WORDS) == [
        "A batch size that grows to the critical one saves 45.2 % (95 % interval 35.2 to 55.2) of the steps of s, and "
        "40 % (95 % interval 30 to 50) of those to the same validation loss. The best validation loss is 1 times that "
        "at the constant batch size (95 % interval 0.902 to 1.1).",
        "No critical batch size of s is above its own, so the batch size does not grow.",
        "A batch size that grows to the critical one saves 45.2 % of the steps of s, and 40 % of those to the same "
        "validation loss. The best validation loss is 1 times that at the constant batch size.",
    ]
