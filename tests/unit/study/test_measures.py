"""Names and units of the loss and the metrics of each task."""

import pytest

from batchscape.report.measures import Measures
from batchscape.study.measures import describe_measures
from batchscape.study.study import Study
from tests.helpers.measures import CLASSIFICATION, TASKS, NumbersSection, TextSection, task_of

TITLES = {
    "classification": ("Cross-entropy (nats)", ["Accuracy"], "images"),
    "class weights": ("Cross-entropy (nats)", ["Weighted accuracy"], "images"),
    "weighted examples": ("Cross-entropy (nats)", ["Weighted accuracy"], "examples"),
    "regression": ("Mean squared error (log(price)²)", ["RMSE (log(price))", "MAE (log(price))", "R²"], "examples"),
    "bytes": ("Cross-entropy (nats per byte)", ["Perplexity (per byte)", "Bits per byte"], "examples"),
    "characters": ("Cross-entropy (nats per character)", ["Perplexity (per character)"], "examples"),
    "own loss": ("Gaussian nll", [], "examples"),
    "own metric": ("Mean squared error", ["RMSE", "MAE", "R²", "Relative error"], "examples"),
}


@pytest.mark.parametrize("name", TASKS)
def test_each_task_has_its_names_and_units(name: str):
    loss, metrics, examples = TITLES[name]
    words = Measures.from_settings(describe_measures(*TASKS[name]))
    assert words.loss_title == loss
    assert [metric.title for metric in words.metrics] == metrics
    assert words.examples == examples


@pytest.mark.parametrize(
    ("loss", "target", "standardized", "title"),
    [
        ("mse", "", False, "Mean squared error"),
        ("mse", "price", False, "Mean squared error (price²)"),
        ("mse", "body mass", False, "Mean squared error ((body mass)²)"),
        ("mse", "price", True, "Mean squared error (sd²)"),
        ("absolute", "log(price)", False, "Mean absolute error (log(price))"),
        ("absolute", "price", True, "Mean absolute error (sd)"),
        ("huber", "price", False, "Huber loss (price²)"),
        ("mse", "width, height", False, "Mean squared error"),
    ],
)
def test_loss_of_a_regression_has_the_unit_of_the_stored_target(loss: str, target: str, standardized: bool, title: str):
    data = NumbersSection(target=target, standardized=standardized)
    words = Measures.from_settings(describe_measures(task_of(name="regression", loss=loss), data))
    assert words.loss_title == title
    # Metrics are in the original unit, whether the stored target is standardized or not.
    assert words.first.unit == ("" if "," in target else target)


def test_metrics_of_a_module_have_no_unit():
    """It computes them itself, from targets that are standardized."""
    task = task_of(name="regression", loss="module", metrics=["mae", "perplexity"])
    words = Measures.from_settings(describe_measures(task, NumbersSection(target="price", standardized=True)))
    assert [metric.unit for metric in words.metrics] == ["", ""]


def test_perplexity_without_a_unit_is_per_token():
    words = Measures.from_settings(describe_measures(task_of(name="language_model"), TextSection(unit="")))
    assert (words.loss_unit, words.first.unit) == ("nats per token", "per token")


def test_a_study_without_a_task_classifies():
    study = Study.from_mapping({"name": "s"}, "s")
    assert study.specs.measures == CLASSIFICATION
