"""Differences between studies, results side by side, power laws and the claim on optimizers, from known truth."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from batchscape.config.figures import FiguresConfig
from batchscape.report.comparison import claims, power_laws, results
from batchscape.report.comparison.claims import compare_critical_batches
from batchscape.report.comparison.page import render_comparison
from batchscape.report.comparison.power_laws import find_ladders, fit_power_law
from batchscape.report.comparison.results import find_best_rates, tabulate
from batchscape.report.comparison.studies import StudyTables, describe_comparability, find_differences
from batchscape.report.figures.comparison import draw
from batchscape.report.figures.files import render_png
from batchscape.report.tables import critical_batch
from tests.helpers.checkout import PROJECT
from tests.helpers.finished import RATES, SIZES, made_up_steps, made_up_study, made_up_tables
from tests.helpers.page import ParsedPage
from tests.helpers.tables import synthetic_runs

MOMENTUM = {"optimizer": {"arguments": {"momentum": 0.9}}}
ADAM = {"optimizer": {"name": "Adam"}}


def page(studies: list[StudyTables], not_finished: list[str] | None = None) -> ParsedPage:
    names = [study.name for study in studies] + (not_finished or [])
    table = tabulate(studies, not_finished or [])
    laws = power_laws.tabulate(find_ladders(studies), table)
    verdicts = claims.tabulate(studies)
    return ParsedPage(render_comparison(names, [], find_differences(studies), table, laws, verdicts, b""))


def test_settings_that_differ_are_named_with_dotted_keys_those_of_training_first():
    studies = [
        made_up_study("a"),
        made_up_study("b", grid={"seeds": [0, 1]}, **MOMENTUM),
        made_up_study("c", analysis={"examples": 5}, training={"checkpoints": [3]}, schedule={"decay": "cosine"}),
    ]
    table = find_differences(studies).set_index("key")
    assert table["decides"].to_dict() == {
        "optimizer.arguments.momentum": "training",
        "schedule.decay": "training",
        "grid.seeds": "runs and analyses",
        "training.checkpoints": "runs and analyses",
        "analysis.examples": "runs and analyses",
    }
    assert table.loc["optimizer.arguments.momentum", ["a", "b", "c"]].to_list() == ["not set", "0.9", "not set"]
    assert table.loc["grid.seeds", ["a", "b"]].to_list() == ["[0, 1, 2]", "[0, 1]"]
    assert table.index[:2].to_list() == ["optimizer.arguments.momentum", "schedule.decay"]
    assert find_differences([studies[0], made_up_study("d")]).empty


def test_best_rates_are_those_of_the_parabola_and_bounds_are_marked():
    rates = find_best_rates(made_up_tables(best_rate=0.013, exponent=0.5)["runs"])
    for size in SIZES:
        assert not rates[size].is_bound
        assert rates[size].estimate.value == pytest.approx(0.013 * (size / 16) ** 0.5)
    losses = {(16, rate): [0.1 * (1 + index), 0.2 * (1 + index)] for index, rate in enumerate(RATES)}
    edge = find_best_rates(synthetic_runs(losses))[16]
    assert edge.is_bound
    assert edge.estimate[:1] == pytest.approx(RATES[:1])
    assert np.isnan(edge.estimate.ci95_low)
    diverged = find_best_rates(synthetic_runs({(16, 0.1): [None, 0.2], (16, 0.2): [None, None]}))[16]
    assert diverged.is_bound
    assert np.isnan(diverged.estimate.value)


def test_interval_of_the_best_rate_is_that_of_leaving_out_seeds():
    """With a parabola of the same width in each seed, θ without a seed is known: the pseudo-values follow by hand."""
    centers = np.log([0.01, 0.012, 0.02])
    losses = {(16, rate): list(0.1 * np.exp((np.log(rate) - centers) ** 2)) for rate in RATES}
    found = find_best_rates(synthetic_runs(losses))[16].estimate
    assert found.ci95_low < 0.01 < found.value < 0.02 < found.ci95_high


def test_values_are_those_of_the_tables():
    # Seeds that differ: equal ones have no interval, up to rounding errors.
    tables = made_up_tables(critical=(48.0, 50.0, 52.0), best_rate=0.01, exponent=0.5)
    table = tabulate([made_up_study("a", tables)]).set_index("quantity")
    row, estimate = table.loc["critical_batch"], tables["critical_batch"].iloc[0]
    assert row["value"] == estimate["critical_batch"] == pytest.approx(50, rel=0.01)
    assert 40 < row["ci95_low"] == estimate["critical_batch_ci95_low"] < 50
    assert (row["of"], row["unit"], row["verdict"]) == ("loss 0.3 nats", "images", "inside")
    assert row["note"] == "best rates on an edge of the tried ones: 3"  # one rate is tried
    row = table.loc["exponent"]
    assert row["value"] == pytest.approx(0.5)
    assert (row["unit"], row["measure"]) == ("none", "none")
    assert (row["of"], row["verdict"]) == ("learning_rate of the grid", tables["scaling"]["verdict"].iloc[0])
    first = tables["recommendation"].iloc[0]
    assert table.loc["learning_rate", "value"] == first["learning_rate"]
    assert table.loc["best_validation_loss", "value"] == first["best_validation_loss_mean"]
    assert table.loc["best_validation_loss", "measure"] == "cross-entropy, data dddddddddddd"
    assert table.loc["validation_accuracy_at_best", "measure"] == "accuracy, data dddddddddddd"
    assert table.loc["best_validation_loss", "note"].startswith("of the seeds that chose the setting")
    assert np.isnan(table.loc["best_validation_loss", "ci95_low"])
    ratios = table.loc["steps_ratio"]
    assert ratios["value"].to_list() == tables["regimes"]["steps_ratio"].to_list()
    assert ratios["verdict"].to_list() == tables["regimes"]["regime"].to_list()
    assert table.loc["tuned_learning_rate", "verdict"] == "missing"


def test_a_confirmed_setting_has_the_losses_of_fresh_seeds_with_their_interval():
    tables = made_up_tables()
    second = tables["recommendation"]["setting"].iloc[1]
    confirmation = tables["recommendation"].iloc[[1]].assign(choice="chosen")
    values = {"mean": 0.7, "ci95_low": 0.6, "ci95_high": 0.8}
    for end, value in values.items():
        confirmation[f"best_validation_loss_{end}"] = value
    table = tabulate([made_up_study("a", {**tables, "confirmation": confirmation})]).set_index("quantity")
    row = table.loc["best_validation_loss"]
    assert row[["of", "value", "ci95_low", "ci95_high"]].to_list() == [second, 0.7, 0.6, 0.8]
    assert (row["verdict"], row["note"]) == ("confirmed", "none")


def test_tuned_rates_and_all_that_the_search_found_are_named():
    tables = made_up_tables()
    best = tables["recommendation"].iloc[0]
    tables["recommendation"]["setting"] = tables["recommendation"]["setting"].replace(
        best["setting"], f"bs{best['batch_size']}-lrtuned"
    )
    found = pd.DataFrame({"batch_size": list(SIZES), "tuned_learning_rate": [0.1, 0.2, 0.3], "tuned_momentum": 0.95})
    found = found.assign(validation_loss=[0.1, np.inf, 0.1], edge=["none", "low", "high"], advice="x")
    table = tabulate([made_up_study("a", {**tables, "tuned_lr": found})]).set_index("quantity")
    assert table.loc["batch_size", "note"] == "momentum 0.95"
    rates = table.loc["tuned_learning_rate"]
    assert rates["verdict"].to_list() == ["inside", "diverged", "bound"]
    assert rates["value"].fillna(-1).to_list() == [0.1, -1, 0.3]


def test_rows_of_missing_tables_and_unfinished_studies_are_empty():
    tables = made_up_tables()
    del tables["critical_batch"], tables["recommendation"]
    table = tabulate([made_up_study("a", tables)], ["b"])
    missing = table[table["verdict"] == "missing"]
    assert missing[["value", "ci95_low", "ci95_high"]].isna().all(axis=None)
    assert set(missing.loc[missing["study"] == "a", "quantity"]) == {
        *("batch_size", "learning_rate", "critical_batch", "critical_batch_20pct", "tuned_learning_rate"),
    }
    assert set(table.loc[table["study"] == "b", "note"]) == {"the study is not finished"}
    assert set(missing.loc[missing["study"] == "b", "quantity"]) == set(results.QUANTITIES)
    assert table.loc[table["study"].eq("a") & table["quantity"].eq("exponent"), "value"].notna().all()
    assert "b" in page([made_up_study("a", tables)], ["b"]).text


def test_diverged_studies_recommend_nothing():
    tables = made_up_tables()
    tables["recommendation"] = tables["recommendation"].assign(choice="diverged")
    table = tabulate([made_up_study("a", tables)]).set_index("quantity")
    assert table.loc["batch_size", "verdict"] == "diverged"
    assert np.isnan(table.loc["batch_size", "value"])
    assert "best_validation_loss" not in table.index


def ladder(suffix: str = "", **sections: Any) -> list[StudyTables]:
    """Studies of 1,000 to 8,000 images: the critical batch grows with the power 0.5, the best rate falls with 0.25."""
    return [
        made_up_study(
            f"n{count}{suffix}",
            made_up_tables(critical=2 * count**0.5, best_rate=0.1 * count**-0.25),
            sha256=str(count) * 16,
            training_examples=count * 4 // 5,
            data={"images": count},
            **sections,
        )
        for count in (1000, 2000, 4000, 8000)
    ]


def test_ladder_of_data_sizes_gives_the_known_exponents():
    studies = [*ladder(), made_up_study("other", optimizer={"arguments": {"momentum": 0.5}})]
    (found,) = find_ladders(studies[::-1])
    assert [study.name for study in found.studies] == ["n1000", "n2000", "n4000", "n8000"]
    assert (found.quantity, found.keys) == ("training examples", ("data.images",))
    assert found.sizes == (800, 1600, 3200, 6400)
    laws = power_laws.tabulate([found], tabulate(studies)).set_index(["quantity", "of"])
    law = laws.loc[("critical_batch", "loss 0.3 nats")]
    assert law["exponent"] == pytest.approx(0.5, abs=1e-6)
    assert law[["ci95_low", "ci95_high"]].to_list() == pytest.approx([0.5, 0.5], abs=1e-4)
    assert law[["n_studies", "smallest", "largest"]].to_list() == [4, 800, 6400]
    for size in SIZES:
        law = laws.loc[("best_learning_rate", f"batch size {size}")]
        assert law["exponent"] == pytest.approx(-0.25, abs=1e-6)
    text = page(studies).text
    assert "is proportional to the training examples (data.images) to the power of 0.5" in text


def test_ladder_of_networks_and_ladders_of_two_optimizers_are_found_apart():
    widths = [made_up_study(f"w{width}", parameters=width**2, model={"channels": [width]}) for width in (4, 8, 16)]
    (found,) = find_ladders(widths)
    assert (found.quantity, found.keys, found.sizes) == ("parameters", ("model.channels",), (16, 64, 256))
    both = find_ladders([*ladder(), *ladder("m", **MOMENTUM)])
    assert [[study.name for study in each.studies] for each in both] == [
        ["n1000", "n2000", "n4000", "n8000"],
        ["n1000m", "n2000m", "n4000m", "n8000m"],
    ]


@pytest.mark.parametrize(
    "change",
    [{"schedule": {"decay": "cosine"}}, {"training": {"budget": {"epochs": 7}}}, {"data": {"noise": 2.0}}],
    ids=str,
)
def test_studies_that_differ_in_anything_else_form_no_ladder(change: dict[str, Any]):
    studies = ladder()[:2]
    sections = {"data": {"images": 4000}} | change
    other = made_up_study("other", sha256="4" * 64, training_examples=3200, **sections)
    other = other if "data" not in change else made_up_study("other", training_examples=3200, **change)
    assert find_ladders([*studies, other]) == []


def test_dropout_and_other_data_are_no_size_of_a_network():
    names = dict(zip((4, 8, 16), ((0.0, "a"), (0.1, "a"), (0.0, "b")), strict=True))
    studies = [
        made_up_study(f"w{width}", sha256=sha * 64, parameters=width, model={"channels": [width], "dropout": dropout})
        for width, (dropout, sha) in names.items()
    ]
    assert find_ladders(studies) == []


def test_power_law_is_that_of_scipy():
    sizes, values = [10, 30, 100, 500], [2.0, 5.0, 7.0, 31.0]
    expected = stats.linregress(np.log(sizes), np.log(values))
    half = stats.t.ppf(0.975, 2) * expected.stderr
    low, high = expected.slope - half, expected.slope + half
    assert fit_power_law(sizes, values) == pytest.approx((expected.slope, low, high))
    assert np.isnan(fit_power_law(sizes[:2], values[:2])).all()


def test_bounds_and_values_that_are_not_identified_are_left_out_of_power_laws():
    studies = ladder()
    studies[1].tables["critical_batch"].loc[0, ["critical_batch", "verdict", "reason"]] = [
        np.nan,
        "not identified",
        "x",
    ]
    low = made_up_tables(best_rate=RATES[0] / 10)["runs"]
    for study in studies[2:]:
        study.tables["runs"] = low
    laws = power_laws.tabulate(find_ladders(studies), tabulate(studies)).set_index("quantity")
    law = laws.loc["critical_batch"]
    assert law["exponent"] == pytest.approx(0.5, abs=1e-6)
    assert law["n_studies"] == 3
    assert "1 of 4 studies are left out" in law["note"]
    assert laws.loc["best_learning_rate", "exponent"].isna().all()
    assert laws.loc["best_learning_rate", "note"].str.contains("2 of 4 studies have a value").all()


def test_targets_that_differ_between_the_rungs_are_named():
    studies = ladder()
    for index, study in enumerate(studies):
        study.tables["critical_batch"]["target_value"] = 0.3 + 1e-6 * index
    laws = power_laws.tabulate(find_ladders(studies), tabulate(studies)).set_index("quantity")
    assert laws.loc["critical_batch", "of"] == "the first target of each study"
    assert "the targets differ: loss 0.3 nats, loss 0.300001 nats" in laws.loc["critical_batch", "note"]


def claim(first: StudyTables, second: StudyTables) -> pd.Series:
    table = claims.tabulate([first, second])
    assert len(table) == 1
    return table.iloc[0]


PLAIN = [40.0, 50.0, 62.0]


def with_critical(name: str, critical: list[float], target: float = 0.3, **sections: Any) -> StudyTables:
    return made_up_study(name, made_up_tables(critical, target=target), **sections)


@pytest.mark.parametrize(
    ("critical", "verdict"),
    [([80.0, 100.0, 124.0], "supported"), ([20.0, 25.0, 31.0], "refuted"), ([30.0, 50.0, 90.0], "undecided")],
)
@pytest.mark.parametrize("optimizer", [MOMENTUM, ADAM], ids=["momentum", "Adam"])
def test_claim_on_optimizers_follows_from_paired_seeds(critical: list[float], verdict: str, optimizer: dict[str, Any]):
    plain, other = with_critical("plain", PLAIN), with_critical("other", critical, **optimizer)
    row = claim(other, plain)  # in any order
    assert (row["baseline"], row["other"], row["verdict"]) == ("plain", "other", verdict)
    assert row["claim"].startswith("Adam" if optimizer is ADAM else "Momentum")
    tables = [study.tables["critical_batch"]["critical_batch"].iloc[0] for study in (plain, other)]
    assert row["ratio"] == pytest.approx(tables[1] / tables[0])
    assert row["n_seeds"] == 3
    assert row["differs_in"].startswith("optimizer.")
    tried = {study.name: study.tables["critical_batch"]["verdict"].iloc[0] for study in (plain, other)}
    assert ("extrapolated" in row["note"]) == ("outside" in tried.values())
    if verdict != "undecided":  # all seeds have the same ratio, so only rounding remains
        assert row["ci95_high"] / row["ci95_low"] < 1.1


def test_ratio_has_the_interval_of_the_jackknife():
    plain, other = made_up_steps(PLAIN), made_up_steps([70.0, 120.0, 110.0])
    steps = [rows.pivot(index="seed", columns="batch_size", values="steps").to_numpy() for rows in (plain, other)]
    sizes = np.array(SIZES, dtype=float)

    def log_ratio(seeds: list[int]) -> float:
        fits = [critical_batch.fit(np.tile(sizes, len(seeds)), rows[seeds].ravel())[0][0] for rows in steps]
        return fits[1] - fits[0]

    value = log_ratio([0, 1, 2])
    pseudo = [3 * value - 2 * log_ratio([seed for seed in range(3) if seed != left]) for left in range(3)]
    interval = stats.ttest_1samp(pseudo, 0).confidence_interval(0.95)
    half = (interval.high - interval.low) / 2
    found = compare_critical_batches(sizes, steps[0], sizes, steps[1])
    assert found == pytest.approx(np.exp([value, value - half, value + half]), rel=1e-6)


def test_equal_steps_of_all_seeds_give_no_interval():
    sizes = np.array([16.0, 32, 64, 128])
    steps = [np.tile(100 * (1 + critical / sizes), (3, 1)) for critical in (50, 150)]
    found = compare_critical_batches(sizes, steps[0], sizes, steps[1])
    assert found.value == pytest.approx(3)
    assert np.isnan([found.ci95_low, found.ci95_high]).all()


def test_momentum_is_a_baseline_of_adam():
    row = claim(with_critical("adam", [200.0, 210.0, 220.0], **ADAM), with_critical("momentum", PLAIN, **MOMENTUM))
    assert (row["baseline"], row["other"], row["verdict"]) == ("momentum", "adam", "supported")


@pytest.mark.parametrize(
    "other",
    [
        with_critical("b", PLAIN, optimizer={"arguments": {"momentum": 0.0, "weight_decay": 0.1}}),
        with_critical("b", PLAIN, optimizer={"name": "RMSprop"}),
        with_critical("b", PLAIN, schedule={"decay": "cosine"}, **ADAM),
        with_critical("b", PLAIN, model={"channels": [3]}, **ADAM),
        with_critical("b", PLAIN, sha256="e" * 64, data={"noise": 1.0}, **ADAM),
    ],
    ids=["no momentum", "unknown", "schedule too", "network too", "data too"],
)
def test_studies_that_differ_in_more_than_the_kind_of_the_optimizer_test_no_claim(other: StudyTables):
    assert claims.tabulate([with_critical("a", PLAIN), other]).empty


def test_rates_that_follow_the_optimizer_are_no_difference_in_training():
    rates = {"grid": {"learning_rates": [1e-4, 1e-3]}, "comparison": {"fixed_learning_rate": 1e-4}}
    row = claim(with_critical("a", PLAIN), with_critical("b", [100.0, 125.0, 155.0], **rates, **ADAM))
    assert row["verdict"] == "supported"


def test_a_claim_without_a_fair_comparison_is_undecided_with_the_reason():
    plain, larger = with_critical("a", PLAIN), [100.0, 125.0, 155.0]
    row = claim(plain, with_critical("b", larger, target=0.3 + 1e-9, **ADAM))
    assert row["verdict"] == "undecided"
    assert row["note"].startswith("the studies have no target in common (a: loss 0.3 nats; b: loss 0.300000001 nats)")
    row = claim(plain, with_critical("b", larger, sha256="e" * 64, **ADAM))
    assert (row["verdict"], row["note"]) == (
        "undecided",
        "the data of the two studies differ although their settings do not",
    )
    fewer = with_critical("b", larger, **ADAM)
    fewer.tables["runs_to_target"]["seed"] += 2
    row = claim(plain, fewer)
    assert (row["verdict"], row["n_seeds"]) == ("undecided", 1)
    assert "fewer than two seeds in common" in row["note"]
    fewer.tables["runs_to_target"]["seed"] += 2
    assert claim(plain, fewer)["verdict"] == "undecided"
    del fewer.tables["critical_batch"]
    row = claim(plain, fewer)
    assert (row["verdict"], row["note"]) == ("undecided", "tables are missing (b: critical_batch)")
    assert np.isnan(row["ratio"])


def test_losses_of_other_units_or_data_share_no_row_and_are_named():
    price = {"data": {"source": "diamonds"}, "task": {"name": "regression"}}
    a, b, c = made_up_study("a"), made_up_study("b", sha256="e" * 64), made_up_study("c", sha256="f" * 64, **price)
    (sentence,) = describe_comparability([a, b])
    assert "measured on different data" in sentence
    (sentence,) = describe_comparability([a, c])
    assert "different quantities" in sentence
    assert "a: cross-entropy (nats) of data dddddddddddd" in sentence
    assert "c: mean squared error (log(price)²) of data ffffffffffff" in sentence
    assert describe_comparability([a, made_up_study("d")]) == []
    text = page([a, b, c]).text
    for label in (
        "cross-entropy, data dddddddddddd",
        "cross-entropy, data eeeeeeeeeeee",
        "mean squared error, data ffff",
    ):
        assert f"Validation {label}" in text
    assert "Validation cross-entropy\n" not in page([a, c]).text
    assert "Validation cross-entropy, data" not in page([a, made_up_study("d")]).text


def test_every_column_and_quantity_is_documented():
    text = (PROJECT / "docs" / "outputs.md").read_text()
    section = text.partition("\n## Comparisons\n")[2].partition("\n## ")[0]
    names = {*results.COLUMNS, *power_laws.COLUMNS, *claims.COLUMNS, *results.QUANTITIES}
    assert {name for name in names if f"`{name}`" not in section} == set()


def test_page_loads_nothing_and_escapes_names():
    studies = [made_up_study("a", **MOMENTUM), made_up_study("b")]
    parsed = page(studies, ["<script>"])
    assert parsed.open == []
    assert not {tag for tag, _ in parsed.elements} & {"iframe", "object", "embed", "base", "form"}
    assert parsed.all("script") == [{}]  # that of its tables, and none of the name
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert {link["href"][1:] for link in parsed.all("a")} <= set(ids)
    assert "optimizer.arguments.momentum" in parsed.text
    assert "undecided" in parsed.text


def test_figure_draws_bounds_unbounded_intervals_and_studies_without_values():
    studies = [made_up_study("a", made_up_tables(best_rate=1e-5)), made_up_study("a" * 100)]
    table = tabulate(studies, ["missing"])
    table.loc[table["quantity"].eq("critical_batch") & table["study"].eq("a"), ["ci95_low", "ci95_high"]] = [0, np.inf]
    assert render_png(draw(table, ["a", "a" * 100, "missing"]), FiguresConfig()).startswith(b"\x89PNG")
    assert render_png(draw(table[table["verdict"] == "missing"], ["missing"]), FiguresConfig()).startswith(b"\x89PNG")


def test_best_rates_on_an_edge_are_noted_only_where_there_are_any():
    study = made_up_study("a")
    quantities = ["critical_batch", "critical_batch_20pct"]
    for count, note in ((3, "best rates on an edge of the tried ones: 3"), (0, "none")):
        fitted = study.tables["critical_batch"].assign(n_on_edge=count)
        table = tabulate([replace(study, tables={**study.tables, "critical_batch": fitted})])
        assert set(table.loc[table["quantity"].isin(quantities), "note"]) == {note}
