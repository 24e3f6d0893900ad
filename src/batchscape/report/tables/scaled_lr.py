"""The comparison at the fixed learning rate again for every arm, over seeds."""

import pandas as pd

from batchscape.report.settings import SETTING_COLUMNS
from batchscape.report.tables.over_seeds import over_seeds


def tabulate(arm_runs: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each arm, setting and quantity; arms and quantities stand in the order of `arm_runs`."""
    table = over_seeds(arm_runs, ["arm", *SETTING_COLUMNS, "quantity"], ["value"])
    for key in ("quantity", "arm"):
        table = table.sort_values(key, key=_place(arm_runs[key]), kind="stable")
    return table.reset_index(drop=True)


def _place(column: pd.Series):
    order = {name: place for place, name in enumerate(dict.fromkeys(column))}
    return lambda names: names.map(order)
