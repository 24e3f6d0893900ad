"""Table `steps_to_target`: epochs, steps, examples and time to each target, over seeds."""

import pandas as pd

from batchscape.report.settings import SETTING_COLUMNS, constant_batch_settings
from batchscape.report.tables.best_lr import edge_of_range
from batchscape.report.tables.over_seeds import over_seeds
from batchscape.report.tables.runs_to_target import QUANTITIES
from batchscape.report.targets import TARGET_COLUMNS, split_by_target


def tabulate(runs_to_target: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each target and setting, those of the first target first.

    `n_missed` counts the runs that neither diverged nor reached the target; they are excluded from the means. `is_best`
    is 1 for the best setting of each batch size for the target, as in Shallue et al. 2019: of those with the fewest
    runs that diverged or missed, the one with the fewest steps. Settings whose batch size changes are not of one batch
    size, so they are never its best. `edge` says whether its rate is the lowest or the
    highest at which the batch size trained; then its steps are an upper bound.
    """
    return pd.concat([_tabulate_target(runs) for runs in split_by_target(runs_to_target)], ignore_index=True)


def _tabulate_target(runs: pd.DataFrame) -> pd.DataFrame:
    table = over_seeds(runs, SETTING_COLUMNS, QUANTITIES)
    missed = runs["steps"].isna() & runs["status"].ne("diverged")
    table["n_missed"] = missed.groupby([runs[key] for key in SETTING_COLUMNS]).sum().to_numpy()
    for offset, column in enumerate(TARGET_COLUMNS):
        table.insert(len(SETTING_COLUMNS) + offset, column, runs[column].iloc[0])
    table = table.assign(is_best=0, edge="none")
    for _, rows in constant_batch_settings(table).groupby("batch_size"):
        reached = rows.dropna(subset=["steps_mean"])
        if not reached.empty:
            failed = reached["n_missed"] + reached["n_diverged"]
            best = reached[failed == failed.min()]["steps_mean"].idxmin()
            table.loc[best, "is_best"] = 1
            table.loc[best, "edge"] = edge_of_range(table.loc[best, "learning_rate"], rows["learning_rate"])
    return table
