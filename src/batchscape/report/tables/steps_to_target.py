"""Epochs, steps and examples to the target loss, over seeds, and the learning rate that is best for it."""

import pandas as pd

from batchscape.report.settings import SETTING_COLUMNS
from batchscape.report.tables.best_lr import edge_of_range
from batchscape.report.tables.over_seeds import over_seeds


def tabulate(runs_to_target: pd.DataFrame) -> pd.DataFrame:
    """Return one row a setting.

    `n_missed` counts the runs that neither diverged nor reached the target; they are in no mean. `is_best` is 1 for the
    setting of each batch size whose learning rate suits the target best, as in Shallue et al. 2019: of those with the
    fewest runs that diverged or missed, the one with the fewest steps. `edge` says whether its rate is the lowest or
    the highest at which the batch size trained, so that its steps are but an upper bound.
    """
    table = over_seeds(runs_to_target, SETTING_COLUMNS, ["epochs", "steps", "examples"])
    missed = runs_to_target["steps"].isna() & runs_to_target["status"].ne("diverged")
    table["n_missed"] = missed.groupby([runs_to_target[key] for key in SETTING_COLUMNS]).sum().to_numpy()
    table.insert(len(SETTING_COLUMNS), "target_loss", runs_to_target["target_loss"].iloc[0])
    table = table.assign(is_best=0, edge="none")
    for _, rows in table.groupby("batch_size"):
        reached = rows.dropna(subset=["steps_mean"])
        if not reached.empty:
            lost = reached["n_missed"] + reached["n_diverged"]
            best = reached[lost == lost.min()]["steps_mean"].idxmin()
            table.loc[best, "is_best"] = 1
            table.loc[best, "edge"] = edge_of_range(table.loc[best, "learning_rate"], rows["learning_rate"])
    return table
