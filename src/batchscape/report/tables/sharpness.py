"""Sharpness by batch size, over seeds."""

import pandas as pd

from batchscape.report.settings import SETTING
from batchscape.report.tables.over_seeds import over_seeds


def tabulate(sharpness: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each setting, checkpoint, measure and radius."""
    keys = [*SETTING, "checkpoint", "measure", "radius", "batch_norm"]
    return over_seeds(sharpness, keys, ["value", "loss", "evaluations", "iterations", "on_bounds"])
