"""Table `fixed_lr`: losses, epochs and times of each batch size at the fixed learning rate, over seeds."""

from collections.abc import Sequence

import pandas as pd

from batchscape.report.tables import lr_grid


def tabulate(runs: pd.DataFrame, *, fixed_learning_rate: float, metrics: Sequence[str]) -> pd.DataFrame:
    """Return one row for each batch size."""
    return lr_grid.tabulate(runs[runs["learning_rate"] == fixed_learning_rate], metrics=metrics)
