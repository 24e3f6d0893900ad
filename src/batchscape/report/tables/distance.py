"""Table `distance`: distance of the best weights from the initial weights, over seeds."""

import pandas as pd

from batchscape.report.settings import SETTING_COLUMNS
from batchscape.report.tables.over_seeds import over_seeds


def tabulate(distance: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each setting and layer (`all layers`, and each module)."""
    return over_seeds(distance, [*SETTING_COLUMNS, "layer"], ["distance"])
