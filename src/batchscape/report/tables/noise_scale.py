"""Table `noise_scale`: the gradient noise scale during training, over seeds."""

import pandas as pd

from batchscape.io.run_directory import is_noise_scale_epoch
from batchscape.report.settings import SETTING_COLUMNS
from batchscape.report.tables.over_seeds import over_seeds


def tabulate(history: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each setting and measured epoch; `n_seeds` decreases as runs end."""
    measured = history[history["epoch"].map(is_noise_scale_epoch)]
    return over_seeds(measured, [*SETTING_COLUMNS, "epoch"], ["gradient_norm", "noise_scale"])
