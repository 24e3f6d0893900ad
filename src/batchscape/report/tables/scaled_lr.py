"""Table `scaled_lr`: the comparison at the fixed learning rate, repeated for every arm, over seeds."""

from collections.abc import Callable

import pandas as pd

from batchscape.report.settings import SETTING_COLUMNS
from batchscape.report.tables.over_seeds import over_seeds


def tabulate(arm_runs: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each arm, setting and quantity, in the order of `arm_runs`."""
    table = over_seeds(arm_runs, ["arm", *SETTING_COLUMNS, "quantity"], ["value"])
    for key in ("quantity", "arm"):
        table = table.sort_values(key, key=_order_of(arm_runs[key]), kind="stable")
    return table.reset_index(drop=True)


def _order_of(column: pd.Series) -> Callable[[pd.Series], pd.Series]:
    """Return a sort key that sorts by first appearance in a column."""
    order = {name: position for position, name in enumerate(dict.fromkeys(column))}
    return lambda names: names.map(order)
