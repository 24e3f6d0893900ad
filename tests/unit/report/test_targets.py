"""Targets in tables and in words."""

import numpy as np
import pandas as pd
import pytest

from batchscape.report.measures import Measures
from batchscape.report.targets import describe_target, first_target, split_by_target
from batchscape.study.measures import describe_measures
from tests.helpers.measures import TASKS


def test_rows_of_each_target_are_in_the_order_of_the_targets():
    table = pd.DataFrame(
        {"target": ["rmse", "loss", "rmse", "rmse"], "target_value": [2.0, 1.0, 1.0, 2.0], "row": range(4)}
    )
    assert [part["row"].tolist() for part in split_by_target(table)] == [[0, 3], [1], [2]]
    assert first_target(table)["row"].tolist() == [0, 3]


def test_rows_without_a_common_target_are_kept():
    table = pd.DataFrame({"target": "loss", "target_value": np.nan, "row": range(2)})
    (part,) = split_by_target(table)
    assert part["row"].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("task", "name", "value", "words"),
    [
        ("classification", "loss", 0.04567, "0.0457 nats"),
        ("classification", "loss", np.nan, ""),
        ("classification", "accuracy", 0.9995, "accuracy 0.9995"),
        ("class weights", "accuracy", 0.9, "weighted accuracy 0.9"),
        ("regression", "rmse", 0.25, "RMSE 0.25 log(price)"),
        ("regression", "r2", -0.5, "R² −0.5"),
        ("bytes", "bits_per_byte", 2.0, "bits per byte 2"),
        ("own loss", "loss", -1.5, "−1.5"),
        ("own metric", "relative_error", 0.1, "relative error 0.1"),
    ],
)
def test_a_target_is_a_phrase_with_its_unit(task: str, name: str, value: float, words: str):
    measures = Measures.from_settings(describe_measures(*TASKS[task]))
    assert describe_target(name, value, measures) == words
