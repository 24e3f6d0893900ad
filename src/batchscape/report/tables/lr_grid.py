"""Table `lr_grid`: losses, epochs and times of each batch size at each learning rate, over seeds."""

import pandas as pd

from batchscape.report.settings import SETTING_COLUMNS, constant_lr_settings
from batchscape.report.tables.over_seeds import over_seeds

VALUES = (
    "min_train_loss",
    "best_validation_loss",
    "validation_accuracy_at_best",
    "best_epoch",
    "epoch_seconds",
    "epoch_cpu_seconds",
    "seconds_to_best",
    "cpu_seconds_to_best",
)


def tabulate(runs: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each batch size and constant learning rate.

    `n_max_epochs` counts the runs that were still improving when they were stopped: their losses are upper bounds.
    """
    runs = constant_lr_settings(runs)
    table = over_seeds(runs, SETTING_COLUMNS, VALUES)
    stopped = runs["status"].eq("max_epochs").groupby([runs[key] for key in SETTING_COLUMNS]).sum()
    table["n_max_epochs"] = stopped.to_numpy()
    return table
