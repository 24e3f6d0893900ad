"""The words of the report for settings and recipes that are not those of the original study."""

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from batchscape.report.figures.claims import draw
from batchscape.report.page import PartialReport, render
from batchscape.report.summary import describe_setting, summarize
from batchscape.report.tables import best_lr, claims, lr_grid, recommendation
from tests.helpers.claims import make_sources, scale_quantities
from tests.helpers.measures import CLASSIFICATION, METRICS, WORDS
from tests.helpers.page import ParsedPage
from tests.helpers.tables import synthetic_runs

RECIPE = "AdamW (weight_decay 0.1) with cosine decay to 10 % after a warm-up of 10 % of the budget"
RUNS = synthetic_runs({(32, 0.1): [0.10, 0.20, 0.30], (64, 0.1): [0.5, 0.6, 0.7]}).assign(epochs=10)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("bs256-lr0.012", "batch size 256 at learning rate 0.012"),
        ("bs256-lrtuned", "batch size 256 at learning rate 0.012 (tuned)"),
        ("bs256-lr0.012-warmup5", "batch size 256 at learning rate 0.012, with a warm-up of 5 epochs"),
        (
            "bs256-lr0.012-beta2_0.996-wd0.02-warmup5",
            "batch size 256 at learning rate 0.012, β₂ 0.996, weight decay 0.02, with a warm-up of 5 epochs",
        ),
    ],
)
def test_setting_is_described_with_what_its_arm_changed(setting: str, words: str):
    assert describe_setting(pd.Series({"batch_size": 256, "learning_rate": 0.012, "setting": setting})) == words


def recommend() -> pd.DataFrame:
    return recommendation.tabulate(RUNS, best_lr.tabulate(lr_grid.tabulate(RUNS, metrics=METRICS)), metrics=METRICS)


def test_answer_names_the_recipe_unless_it_is_that_of_the_original_study():
    plain, modern = summarize(recommend(), RUNS, WORDS), summarize(recommend(), RUNS, WORDS, recipe=RECIPE)
    first, *others = modern.reasons
    assert first == f"All runs train with {RECIPE}, except for what the name of their setting changes."
    assert (others, modern.headline, modern.caveats) == (plain.reasons, plain.headline, plain.caveats)


def scaling_row(**changes: object) -> pd.DataFrame:
    """Return a table `scaling` of the grid, with an interval that contains 1 and not 0.5."""
    row = {
        **{"source": "grid", "hyperparameter": "learning_rate", "exponent": 0.873, "ci95_low": 0.65, "ci95_high": 1.1},
        **{"verdict": "linear", "rises_and_falls": "no", "smallest_batch_size": 32, "largest_batch_size": 256},
        **{"n_seeds": 3, "reason": "none"},
    }
    return pd.DataFrame([row | changes])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {},
            "The best learning rate of the grid is proportional to the batch size to the power of 0.87 (95 % interval "
            "0.65 to 1.1, 3 seeds, batch sizes 32 to 256): this is linear scaling (1), not square-root scaling (0.5).",
        ),
        (
            {
                "verdict": "not determined",
                "n_seeds": 1,
                "ci95_low": float("nan"),
                "reason": "one seed gives no interval",
            },
            "The best learning rate of the grid is proportional to the batch size to the power of 0.87 (one seed, no "
            "interval, batch sizes 32 to 256): linear (1) and square-root scaling (0.5) are both possible.",
        ),
        (
            {"exponent": float("nan"), "reason": "the best value of 4 of 4 batch sizes is on an edge"},
            "How the best learning rate of the grid follows the batch size is not determined: the best value of 4 of "
            "4 batch sizes is on an edge.",
        ),
        (
            {"source": "search", "hyperparameter": "beta2", "rises_and_falls": "yes", "verdict": "neither"},
            "The best 1 − β₂ of the search is proportional to the batch size to the power of 0.87 (95 % "
            "interval 0.65 to 1.1, 3 seeds, batch sizes 32 to 256): this is neither linear (1) nor square-root scaling "
            "(0.5). It rises and falls again as the batch size grows.",
        ),
    ],
)
def test_answer_says_by_which_power_the_rate_follows_and_how_certain_that_is(changes: dict, sentence: str):
    answer = summarize(recommend(), RUNS, WORDS, scaling=scaling_row(**changes))
    assert [reason for reason in answer.reasons if "follows" in reason or "proportional" in reason] == [sentence]


@pytest.mark.parametrize(("exponent", "words"), [(1.0, "1"), (-0.25, "−0.25"), (-1e-17, "0")])
def test_exponents_are_written_with_two_digits(exponent: float, words: str):
    (sentence,) = [
        s for s in summarize(recommend(), RUNS, WORDS, scaling=scaling_row(exponent=exponent)).reasons if "power" in s
    ]
    assert f"to the power of {words} (" in sentence


def tabulate_claims(**settings: str) -> pd.DataFrame:
    return claims.tabulate(
        *make_sources(scale_quantities()),
        small_batch_size=32,
        large_batch_size=256,
        measures=CLASSIFICATION,
        **settings,
    )


def test_claims_say_for_which_recipe_they_were_made():
    plain, modern = tabulate_claims(), tabulate_claims(recipe=RECIPE)
    assert_frame_equal(tabulate_claims(recipe=""), plain)
    assert_frame_equal(modern.drop(columns="recipe"), plain)
    note = f"made for SGD at a constant learning rate; this study uses {RECIPE}"
    assert set(modern["recipe"]) == {note}
    subtitles = [" ".join(draw(table).labels.subtitle.split()) for table in (plain, modern)]
    assert subtitles == [subtitles[0], f"{subtitles[0]}. The claims were {note}"]
    pages = [
        ParsedPage(render("a", "", {}, {"runs": RUNS, "claims": table}, {}, [], 0.1, WORDS, PartialReport([], []))).text
        for table in (plain, modern)
    ]
    assert [f"The claims were {note}." in page for page in pages] == [False, True]
