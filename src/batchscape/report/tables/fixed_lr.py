"""Batch sizes at one fixed learning rate: least losses, time an epoch, epochs and time to the least validation loss."""

import pandas as pd

from batchscape.report.tables import lr_grid


def tabulate(runs: pd.DataFrame, fixed_learning_rate: float) -> pd.DataFrame:
    """Return one row a batch size."""
    return lr_grid.tabulate(runs[runs["learning_rate"] == fixed_learning_rate])
