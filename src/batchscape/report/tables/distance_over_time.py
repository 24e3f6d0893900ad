"""Table `distance_over_time`: distance from the initial weights by epoch and step, over seeds."""

import pandas as pd

from batchscape.report.settings import SETTING_COLUMNS
from batchscape.report.tables.over_seeds import over_seeds


def tabulate(history: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each setting and epoch; `step` is the number of updates by its end."""
    return over_seeds(history, [*SETTING_COLUMNS, "epoch", "step"], ["distance"])
