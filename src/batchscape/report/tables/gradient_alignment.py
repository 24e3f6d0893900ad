"""Table `gradient_alignment`: norm of the mean gradient of B examples, and its upper bound, over seeds."""

import pandas as pd

from batchscape.report.settings import SETTING_COLUMNS
from batchscape.report.tables.over_seeds import over_seeds


def tabulate(gradient_alignment: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each setting, checkpoint and number of examples."""
    keys = [*SETTING_COLUMNS, "checkpoint", "batch_norm", "examples", "gradient_batch"]
    return over_seeds(gradient_alignment, keys, ["gradient_norm", "bound", "alignment"])
