"""What a row of a table or an analysis is about: its setting, and which settings belong together."""

import pandas as pd

from batchscape.config.base import shortest_decimal

SETTING_COLUMNS = ["batch_size", "learning_rate", "setting"]
"""What the runs of all seeds share; the first two may be the same in settings that differ in their warm-up."""


def constant_lr_settings(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows whose setting is a batch size and a constant learning rate, `bs32-lr0.01`."""
    names = [
        f"bs{batch_size}-lr{shortest_decimal(rate)}"
        for batch_size, rate in zip(frame["batch_size"], frame["learning_rate"], strict=True)
    ]
    return frame[frame["setting"] == names]


def at_learning_rate(frame: pd.DataFrame, learning_rate: float) -> pd.DataFrame:
    """Return the rows of the batch sizes at one constant learning rate."""
    return constant_lr_settings(frame[frame["learning_rate"] == learning_rate])


def shared_learning_rates(frame: pd.DataFrame) -> list[float]:
    """Return the constant learning rates, ascending, at which every batch size of a frame trains."""
    rows = constant_lr_settings(frame)
    counts = rows.groupby("learning_rate")["batch_size"].nunique()
    return sorted(counts[counts == frame["batch_size"].nunique()].index)
