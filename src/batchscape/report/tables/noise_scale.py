"""Table `noise_scale`: the gradient noise scale during training, over seeds."""

import pandas as pd

from batchscape.io.run_directory import is_noise_scale_evaluation
from batchscape.report.settings import SETTING_COLUMNS
from batchscape.report.tables.over_seeds import over_seeds


def tabulate(history: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each setting and measured epoch; `n_seeds` decreases as runs end."""
    evaluation = history.groupby("run").cumcount() + 1
    measured = history[evaluation.map(is_noise_scale_evaluation)]
    return over_seeds(measured, [*SETTING_COLUMNS, "epoch"], ["gradient_norm", "noise_scale"])
