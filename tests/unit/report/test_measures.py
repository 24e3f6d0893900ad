"""Words for losses and metrics."""

import pytest

from batchscape.report.measures import Measures
from batchscape.study.measures import describe_measures
from tests.helpers.measures import TASKS


def words_of(task: str) -> Measures:
    return Measures.from_settings(describe_measures(*TASKS[task]))


@pytest.mark.parametrize(
    ("task", "column", "unit"),
    [
        ("classification", "best_validation_loss", "nats"),
        ("classification", "loss", "nats"),
        ("classification", "validation_accuracy_at_best", ""),
        ("bytes", "train_loss", "nats per byte"),
        ("bytes", "validation_perplexity_at_best", "per byte"),
        ("bytes", "test_perplexity", "per byte"),
        ("bytes", "test_bits_per_byte", ""),
        ("regression", "test_rmse", "log(price)"),
        ("regression", "validation_r2_at_best", ""),
        ("regression", "best_epoch", ""),
        ("own loss", "test_loss", ""),
    ],
)
def test_columns_have_units(task: str, column: str, unit: str):
    assert words_of(task).unit_of(column) == unit


@pytest.mark.parametrize(
    ("task", "phrase"),
    [
        ("classification", "accuracy 0.95"),
        ("class weights", "weighted accuracy 0.95"),
        ("regression", "RMSE 0.95 log(price)"),
        ("bytes", "perplexity 0.95 per byte"),
        ("own metric", "RMSE 0.95"),
    ],
)
def test_a_value_is_a_phrase_with_its_unit(task: str, phrase: str):
    assert words_of(task).first.phrase("0.95") == phrase


def test_without_a_unit_nothing_is_added():
    words = words_of("own loss")
    assert words.loss_phrase("−1.2") == "−1.2"
    assert words.per_weight("²") == "1/unit²"
    assert words.first is None
    assert words.caption_words == {"metric_item": "", "and_metric": ""}


def test_captions_name_the_metric():
    assert words_of("regression").caption_words == {"metric_item": "RMSE, ", "and_metric": " and RMSE"}
    assert words_of("bytes").caption_words["and_metric"] == " and perplexity"
