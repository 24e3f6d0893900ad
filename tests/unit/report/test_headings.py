"""Headings of tables, axes and switches: each column of a report has one, with its unit."""

import json

import pytest

from batchscape.report.headings import HEADINGS, find_heading, heading
from batchscape.report.interactive.views import VIEWS, name_column
from batchscape.report.preview import displayed_columns, preview_table
from tests.helpers.checkout import PROJECT
from tests.helpers.measures import WORDS
from tests.helpers.scenarios import load_scenario


@pytest.mark.parametrize("scenario", ["plain", "one learning rate"])  # the second one has a batch size that changes
def test_every_column_of_a_reported_table_has_a_heading(scenario: str):
    study, frames = load_scenario(scenario)
    tables = {name.removeprefix("tables/"): frame for name, frame in frames.items() if name.startswith("tables/")}
    below_figures = json.loads(study.specs.report)["tables"].values()
    assert {table for below in below_figures for table in below} <= set(tables)
    for name, table in tables.items():
        for column in displayed_columns(table):
            assert find_heading(column, WORDS), f"{name}: {column}"
        preview = preview_table(table, 8, WORDS)
        assert len(set(preview.columns)) == len(preview.columns), name


def test_every_axis_of_an_interactive_figure_has_a_heading():
    names = {name_column(name, WORDS) for view in VIEWS.values() for name in (view.x, *view.panels)}
    assert {name for name in names if not find_heading(name, WORDS)} == set()


def test_every_column_with_a_heading_is_in_the_dictionary_of_the_docs():
    text = (PROJECT / "docs" / "outputs.md").read_text()
    names = [name for name in HEADINGS if not name.endswith("ci95")]  # part of the names of the two ends
    assert [name for name in names if f"`{name}`" not in text] == []


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("n_seeds", "Seeds"),
        ("ci95_low", "95 % interval, low"),
        ("cpu_seconds_to_best", "CPU time to best epoch (s)"),
        ("best_validation_loss", "Best validation loss (nats)"),
        ("difference_to_best", "Difference to the best loss (nats)"),
        ("test_loss_ci95_high", "Test loss (nats), 95 % interval, high"),
        ("validation_accuracy_at_best", "Accuracy at best epoch"),
        ("steps_saved_to_loss", "Share of the steps to the same loss saved"),  # no loss, though its name ends so
        ("first_ci95_low", "First exponent, 95 % interval, low"),
        ("a_new_column", "A new column"),
    ],
)
def test_headings_have_words_and_units(column: str, expected: str):
    assert heading(column, WORDS) == expected
