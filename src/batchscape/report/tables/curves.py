"""Table `curves`: training and validation loss and accuracy by epoch, over seeds."""

import pandas as pd

from batchscape.report.settings import SETTING_COLUMNS
from batchscape.report.tables.over_seeds import over_seeds


def tabulate(history: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each setting and epoch; `n_seeds` decreases as runs end."""
    values = ["train_loss", "train_accuracy", "validation_loss", "validation_accuracy"]
    return over_seeds(history, [*SETTING_COLUMNS, "epoch"], values)
