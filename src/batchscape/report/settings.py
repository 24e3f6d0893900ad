"""Selection of rows by setting: batch size, learning rate and schedule."""

import pandas as pd

from batchscape.config.base import shortest_decimal

SETTING_COLUMNS = ["batch_size", "learning_rate", "setting"]
"""The columns that the runs of all seeds of a setting share. Settings that differ only in their warm-up have the same
batch size and learning rate."""


def constant_lr_settings(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows whose setting is a batch size with a constant learning rate, such as `bs32-lr0.01`."""
    names = [
        f"bs{batch_size}-lr{shortest_decimal(rate)}"
        for batch_size, rate in zip(frame["batch_size"], frame["learning_rate"], strict=True)
    ]
    return frame[frame["setting"] == names]


def at_learning_rate(frame: pd.DataFrame, learning_rate: float) -> pd.DataFrame:
    """Return the rows of all batch sizes at one constant learning rate."""
    return constant_lr_settings(frame[frame["learning_rate"] == learning_rate])


def shared_learning_rates(frame: pd.DataFrame) -> list[float]:
    """Return the constant learning rates, ascending, that every batch size of a frame is trained at."""
    rows = constant_lr_settings(frame)
    counts = rows.groupby("learning_rate")["batch_size"].nunique()
    return sorted(counts[counts == frame["batch_size"].nunique()].index)
