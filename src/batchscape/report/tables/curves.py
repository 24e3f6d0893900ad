"""Table `curves`: training and validation loss and metrics by epoch, over seeds."""

from collections.abc import Sequence

import pandas as pd

from batchscape.report.settings import SETTING_COLUMNS
from batchscape.report.tables.over_seeds import over_seeds


def tabulate(history: pd.DataFrame, *, metrics: Sequence[str]) -> pd.DataFrame:
    """Return one row for each setting and epoch; `n_seeds` decreases as runs end."""
    values = [f"{side}_{name}" for side in ("train", "validation") for name in ("loss", *metrics)]
    return over_seeds(history, [*SETTING_COLUMNS, "epoch"], values)
