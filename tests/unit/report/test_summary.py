"""The words of the report for settings and recipes that are not those of the original study."""

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from scipy import stats

from batchscape.report.figures.claims import draw
from batchscape.report.numbers import format_number
from batchscape.report.page import PartialReport, render
from batchscape.report.summary import Answer, describe_setting, summarize
from batchscape.report.tables import best_lr, claims, confirmation, lr_grid, recommendation
from tests.helpers.claims import make_sources, scale_quantities
from tests.helpers.measures import CLASSIFICATION, METRICS, WORDS, make_report_spec
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


def test_answer_warns_of_what_is_best_at_the_first_evaluation_and_not_of_a_run_shorter_than_an_epoch():
    def warnings(**columns: float) -> list[str]:
        return [text for text in summarize(recommend().assign(**columns), RUNS, WORDS).caveats if "learned" in text]

    assert warnings(best_epoch_mean=0.9, best_evaluation_mean=9.0) == []
    (warning,) = warnings(best_epoch_mean=5.0, best_evaluation_mean=1.0)
    assert "is best at the first evaluation" in warning


def test_answer_lists_settings_whose_seeds_are_not_complete():
    runs = synthetic_runs({(32, 0.1): [0.1, 0.2, 0.3], (64, 0.1): [0.05, 0.06]}).assign(epochs=10)
    table = recommendation.tabulate(runs, best_lr.tabulate(lr_grid.tabulate(runs, metrics=METRICS)), metrics=METRICS)
    answer = summarize(table, runs, WORDS)
    assert "batch size 32" in answer.headline
    assert "In 1 of 2 settings runs of some seeds are missing, so they are no candidates: bs64-lr0.1." in answer.caveats


def scaling_row(**changes: object) -> pd.DataFrame:
    """Return a table `scaling` of the grid, with an interval that contains 1 and not 0.5."""
    row = {
        **{"source": "grid", "hyperparameter": "learning_rate", "exponent": 0.873, "ci95_low": 0.65, "ci95_high": 1.1},
        **{"verdict": "linear", "rises_and_falls": "no", "smallest_batch_size": 32, "largest_batch_size": 256},
        **{"n_seeds": 3, "n_on_edge": 0, "reason": "none"},
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
            {"n_on_edge": 1},
            "The best learning rate of the grid is proportional to the batch size to the power of 0.87 (95 % interval "
            "0.65 to 1.1, 3 seeds, batch sizes 32 to 256 without 1 whose best value is on an edge): this is linear "
            "scaling (1), not square-root scaling (0.5).",
        ),
        (
            {
                "verdict": "not determined",
                "n_seeds": 1,
                "ci95_low": float("nan"),
                "reason": "one seed gives no interval",
            },
            "The best learning rate of the grid is proportional to the batch size to the power of 0.87 (one seed, no "
            "interval, batch sizes 32 to 256): this does not tell linear (1), square-root (0.5) and no scaling (0) "
            "apart.",
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
        (
            {"exponent": 1.0, "ci95_low": float("nan"), "ci95_high": float("nan"), "verdict": "not determined"},
            "The best learning rate of the grid is proportional to the batch size to the power of 1 (3 seeds that do "
            "not differ, no interval, batch sizes 32 to 256): this does not tell linear (1), square-root (0.5) and no "
            "scaling (0) apart.",
        ),
    ],
)
def test_answer_says_by_which_power_the_rate_follows_and_how_certain_that_is(changes: dict, sentence: str):
    answer = summarize(recommend(), RUNS, WORDS, scaling=scaling_row(**changes))
    assert [reason for reason in answer.reasons if "follows" in reason or "proportional" in reason] == [sentence]


def test_answer_says_that_the_power_of_the_search_is_that_of_short_trials():
    answers = [
        summarize(recommend(), RUNS, WORDS, scaling=scaling_row(source=source), trial_budget=budget).reasons
        for source, budget in (("search", "40 epochs"), ("search", ""), ("grid", "40 epochs"))
    ]
    short, complete, grid = ([reason for reason in reasons if "power" in reason] for reasons in answers)
    assert short[0].startswith(
        "The best learning rate of the search within trials of 40 epochs, which are shorter than runs, is proportional"
    )
    assert complete[0].startswith("The best learning rate of the search is proportional")
    assert grid[0].startswith("The best learning rate of the grid is proportional")


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
        ParsedPage(render(make_report_spec(), {}, {"runs": RUNS, "claims": table}, [], PartialReport([], []))).text
        for table in (plain, modern)
    ]
    assert [f"The claims were {note}." in page for page in pages] == [False, True]


# The headline, from tables with one, two and many seeds.


def answer(losses: dict, fresh: dict | None = None, has_test: bool = True) -> Answer:
    """Return the answer for the losses of the grid, and of the finalists with fresh seeds."""
    runs = synthetic_runs(losses).assign(epochs=10)
    table = recommendation.tabulate(runs, best_lr.tabulate(lr_grid.tabulate(runs, metrics=METRICS)), metrics=METRICS)
    confirmed = None
    if fresh is not None:
        rows = synthetic_runs(fresh).assign(diverged_in_grid=0)
        if has_test:
            rows = rows.assign(test_loss=rows["best_validation_loss"] + 1, test_accuracy=0.5)
        confirmed = confirmation.tabulate(rows, metrics=METRICS)
    return summarize(table, runs, WORDS, confirmation=confirmed)


CLEAR = {(32, 0.1): [0.10, 0.11, 0.12], (64, 0.1): [0.50, 0.51, 0.53]}


def test_headline_has_the_test_loss_of_the_fresh_seeds_and_its_interval():
    found = answer(CLEAR, {(32, 0.1): [0.12, 0.14, 0.16], (64, 0.1): [0.55, 0.56, 0.58]})
    low, high = stats.t.interval(0.95, 2, 1.14, stats.sem([0.12, 0.14, 0.16]))
    assert found.headline == (
        "Train with batch size 32 at learning rate 0.1: test loss 1.14 nats (95 % interval "
        f"{low:.2f} to {high:.2f}) with 3 fresh seeds."
    )
    without_test = answer(CLEAR, {(32, 0.1): [0.12, 0.14, 0.16]}, has_test=False)
    assert ": validation loss 0.14 nats (95 % interval" in without_test.headline
    assert any("the validation images had in every choice" in caveat for caveat in without_test.caveats)


@pytest.mark.parametrize("offset", [0.0, -10.0], ids=["never negative", "negative"])
def test_an_interval_of_losses_says_where_it_is_no_bound(offset: float):
    losses = {setting: [loss + offset for loss in values] for setting, values in CLEAR.items()}
    found = answer(losses, {(32, 0.1): [offset + 0.1, offset + 0.3]}, has_test=False)
    low, high = stats.t.interval(0.95, 1, offset + 0.2, stats.sem([0.1, 0.3]))
    assert low < offset  # a mean of losses that are never negative is not below 0
    expected = f"{format_number(low)} to {format_number(high)}" if offset else f"up to {format_number(high)}"
    assert f"(95 % interval {expected})" in found.headline


def test_fresh_seeds_choose_among_the_finalists():
    found = answer(CLEAR, {(32, 0.1): [0.8, 0.9, 1.0], (64, 0.1): [0.2, 0.3, 0.4]})
    assert found.headline.startswith("Train with batch size 64 at learning rate 0.1: test loss 1.3 nats")
    assert any("Batch size 32 at learning rate 0.1 is worse" in reason for reason in found.reasons)


@pytest.mark.parametrize(
    ("losses", "count"),
    [
        ({(32, 0.1): [0.1, 0.2, 0.3], (64, 0.1): [0.1, 0.2, 0.3], (128, 0.1): [0.1, 0.2, 0.3]}, "2 other settings are"),
        ({(32, 0.1): [0.1, 0.2, 0.3], (64, 0.1): [0.3, 0.2, 0.2], (128, 0.1): [0.9, 1, 1.1]}, "1 other setting is"),
        ({(32, 0.1): [0.1, 0.9, 0.5], (64, 0.1): [0.8, 0.2, 0.6], (128, 0.1): [0.6, 0.7, 0.4]}, "2 other settings are"),
    ],
    ids=["ties", "one unclear", "all unclear"],
)
def test_headline_counts_the_settings_that_the_seeds_do_not_distinguish(losses: dict, count: str):
    assert answer(losses).headline.endswith(f"; {count} not distinguishable from it.")
    confirmed = answer(losses, losses).headline
    assert confirmed.endswith(f"fresh seeds; {count} not distinguishable from it.")


def test_settings_that_are_no_finalists_are_compared_with_the_seeds_of_the_grid():
    losses = {(32, 0.1): [0.1, 0.2, 0.3], (64, 0.1): [0.3, 0.2, 0.2], (128, 0.1): [0.12, 0.25, 0.28]}
    fresh = {(32, 0.1): [0.1, 0.2, 0.3], (64, 0.1): [0.5, 0.6, 0.7]}  # the first is now better, each seed by 0.4
    assert answer(losses, fresh).headline.endswith("; 1 other setting is not distinguishable from it.")


@pytest.mark.parametrize(("seeds", "words"), [(1, "one seed"), (2, "two seeds")])
def test_few_seeds_are_named_and_claim_nothing(seeds: int, words: str):
    losses = {(32, 0.1): [0.10, 0.12][:seeds], (64, 0.1): [0.5, 0.9][:seeds]}
    grid = answer(losses)
    assert grid.headline.startswith(f"Best setting seen, with {words}: batch size 32")
    assert grid.headline.endswith("; 1 other setting is not distinguishable from it.")
    assert any("batchscape extend FILE --seeds" in caveat for caveat in grid.caveats)
    fresh = answer(losses, losses)
    assert fresh.headline.startswith(f"Best setting seen, with {words.replace(' ', ' fresh ')}: batch size 32")
    assert ("95 % interval" in fresh.headline) == (seeds == 2)


def test_without_confirmation_the_loss_that_chose_is_the_loss_reported():
    assert any(
        caveat.startswith("The loss that chose the setting is the loss that is reported")
        for caveat in answer(CLEAR).caveats
    )


def test_grid_decides_if_every_finalist_diverged():
    found = answer(CLEAR, {(32, 0.1): [None, None], (64, 0.1): [None, None]})
    assert found.headline == "Train with batch size 32 at learning rate 0.1."
    assert any("the recommendation is the choice of the grid alone" in reason for reason in found.reasons)


def test_confirmation_decides_only_once_it_is_complete():
    """Of two finalists that are equivalent in the grid, the second one has a seed less."""
    fresh = synthetic_runs({(64, 0.1): [0.1, 0.2, 0.3], (32, 0.1): [0.05, 0.06]}).assign(epochs=10, diverged_in_grid=0)
    table = confirmation.tabulate(fresh, metrics=METRICS)
    answer, without = (summarize(recommend(), RUNS, WORDS, confirmation=each) for each in (table, None))
    assert (answer.headline, answer.caveats) == (without.headline, without.caveats)
    assert "batch size 32 at learning rate 0.1" in answer.headline
    (added,) = set(answer.reasons) - set(without.reasons)
    assert added.endswith(
        "; not all of these runs are complete, so the recommendation is the choice of the grid alone."
    )


def test_answer_does_not_say_that_no_loss_is_close_where_a_paired_difference_is_certain():
    runs = synthetic_runs({(32, 0.1): [0.1, 0.2, 0.3], (64, 0.1): [0.101, 0.201, 0.3012]}).assign(epochs=10)
    table = recommendation.tabulate(runs, best_lr.tabulate(lr_grid.tabulate(runs, metrics=METRICS)), metrics=METRICS)
    reasons = summarize(table, runs, WORDS).reasons
    assert "No other setting is equivalent within the precision of these seeds." in reasons


def test_finalist_that_is_better_is_not_counted_as_indistinguishable():
    """Batch size 128 is the cheapest of three equivalent settings; 64 is lower by 0.001 with each seed."""
    first = [1.0, 1.1, 1.2]
    cheapest = [1.03, 1.08, 1.22]
    below = [value - 0.001 - change for value, change in zip(cheapest, (0, 1e-5, 0), strict=True)]
    losses = {(32, 0.1): first, (64, 0.1): below, (128, 0.1): cheapest}
    grid = synthetic_runs(losses, {(32, 0.1): 9, (64, 0.1): 8, (128, 0.1): 2}).assign(epochs=10)
    fresh = confirmation.tabulate(grid.assign(diverged_in_grid=0), metrics=METRICS)
    assert fresh.set_index("setting")["choice"].to_dict() == {
        "bs128-lr0.1": "chosen",
        "bs32-lr0.1": "not distinguishable",
        "bs64-lr0.1": "better",
    }
    table = recommendation.tabulate(grid, best_lr.tabulate(lr_grid.tabulate(grid, metrics=METRICS)), metrics=METRICS)
    answer = summarize(table, grid, WORDS, confirmation=fresh)
    assert answer.headline.endswith("; 1 other setting is not distinguishable from it.")
