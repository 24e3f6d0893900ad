"""Table `lr_grid`: losses, epochs and times of each batch size at each learning rate, over seeds."""

from collections.abc import Sequence

import pandas as pd

from batchscape.report.settings import SETTING_COLUMNS, constant_lr_settings
from batchscape.report.tables.over_seeds import over_seeds

LOSSES = ("min_train_loss", "best_validation_loss")
COSTS = ("best_epoch", "epoch_seconds", "epoch_cpu_seconds", "seconds_to_best", "cpu_seconds_to_best")


def tabulate(runs: pd.DataFrame, *, metrics: Sequence[str]) -> pd.DataFrame:
    """Return one row for each batch size and constant learning rate.

    `n_budget_spent` counts the runs that were ended by their budget, not by patience: their losses are upper bounds.
    """
    runs = constant_lr_settings(runs)
    at_best = [f"validation_{name}_at_best" for name in metrics]
    table = over_seeds(runs, SETTING_COLUMNS, [*LOSSES, *at_best, *test_columns(runs, metrics), *COSTS])
    stopped = runs["status"].eq("budget_spent").groupby([runs[key] for key in SETTING_COLUMNS]).sum()
    table["n_budget_spent"] = stopped.to_numpy()
    return table


def test_columns(runs: pd.DataFrame, metrics: Sequence[str]) -> list[str]:
    """Return the columns of the table `runs` with the loss and the metrics on the test side; none if there is none."""
    return [f"test_{name}" for name in ("loss", *metrics) if f"test_{name}" in runs]
