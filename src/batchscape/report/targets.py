"""Targets: values of the validation loss or of a metric up to which steps and epochs are counted."""

import numpy as np
import pandas as pd

from batchscape.report.measures import Measures
from batchscape.report.numbers import format_number

LOSS = "loss"
TARGET_COLUMNS = ["target", "target_value"]
"""The columns of a target: what is measured, `loss` or the name of a metric, and the value to reach."""


def split_by_target(table: pd.DataFrame) -> list[pd.DataFrame]:
    """Return the rows of each target, in the order of the targets.

    Args:
        table: A table with the columns `TARGET_COLUMNS`; the value of a target may be nan.
    """
    return [rows for _, rows in table.groupby(TARGET_COLUMNS, sort=False, dropna=False)]


def first_target(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the first target, which figures and sentences are about.

    Args:
        table: A table with the columns `TARGET_COLUMNS`, and at least one row.
    """
    return split_by_target(table)[0]


def runs_at_best_settings(runs_to_target: pd.DataFrame, steps_to_target: pd.DataFrame) -> pd.DataFrame:
    """Return the runs of the best setting of each batch size that reached a target.

    Args:
        runs_to_target: The rows of that table for one target.
        steps_to_target: The rows of that table for the same target.
    """
    best = steps_to_target.loc[steps_to_target["is_best"] == 1, "setting"]
    runs = runs_to_target[runs_to_target["setting"].isin(best) & runs_to_target["status"].ne("diverged")]
    return runs.dropna(subset=["steps"])


def mean_batch_sizes(runs: pd.DataFrame) -> pd.Series:
    """Return the mean size of the batches of an epoch, whose last one may be smaller, by batch size.

    Args:
        runs: Runs with the columns `batch_size`, `steps` and `examples`.
    """
    return (runs["examples"] / runs["steps"]).groupby(runs["batch_size"]).mean()


def describe_target(name: str, value: float, measures: Measures) -> str:
    """Return a target in words, such as `0.05 nats` or `accuracy 0.95`; empty if there is none.

    Args:
        name: `loss`, or the name of a metric.
        value: The value to reach; nan if there is none.
        measures: What the loss and the metrics are called, and their units.
    """
    if np.isnan(value):
        return ""
    if name == LOSS:
        return measures.loss_phrase(format_number(value))
    # As it was given: three digits would make 1 of an accuracy of 0.9995.
    return measures.metric(name).phrase(f"{value:g}".replace("-", "−"))
