"""The ranking of settings by their validation loss."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from batchscape.report.settings import SETTING_COLUMNS
from batchscape.report.tables.over_seeds import over_seeds

LOSS = "best_validation_loss"
COSTS = ("seconds_to_best", "cpu_seconds_to_best")


def has_negative_loss(runs: pd.DataFrame) -> bool:
    """Return whether a loss of the table `runs` is negative, so that losses of the study have no natural zero."""
    return bool((runs[["min_train_loss", LOSS]] < 0).any(axis=None))


def cost_column(runs: pd.DataFrame) -> tuple[str, str]:
    """Return the quantity by which the costs of settings are compared, and its unit.

    It is CPU time if all runs trained on a CPU, where other jobs on the same cores increase wall time; else wall time.
    """
    return ("cpu_seconds_to_best", "CPU s") if runs["device"].eq("cpu").all() else ("seconds_to_best", "s")


def rank_settings(runs: pd.DataFrame, values: Sequence[str] = (LOSS, *COSTS)) -> pd.DataFrame:
    """Return one row for each setting, the one with the lowest mean of the best validation loss first.

    Of settings with equal losses, the one that takes the shortest time to its best epoch is first. Settings with a
    diverged run are last, without the mark `candidate`. So are, in a study that is not finished, those that do not have
    the seeds of most others: the mean of other seeds may be lower by chance.

    Args:
        runs: The table `runs`, or the same rows of other runs.
        values: Columns to summarize, among them the loss and the times to the best epoch.

    Returns:
        The columns of a setting, `<value>_mean` and `<value>_sd` of each value, `n_seeds`, `n_diverged`,
        `n_budget_spent` and `candidate`.
    """
    table = over_seeds(runs, SETTING_COLUMNS, values)
    statistics = [f"{value}_{part}" for value in values for part in ("mean", "sd")]
    stopped = runs["status"].eq("budget_spent").groupby([runs[key] for key in SETTING_COLUMNS]).sum()
    table = table[[*SETTING_COLUMNS, *statistics, "n_seeds", "n_diverged"]].assign(n_budget_spent=stopped.to_numpy())
    seeds = runs.groupby("setting")["seed"].agg(frozenset)[table["setting"]].reset_index(drop=True)
    candidate = table["n_diverged"].eq(0) & np.isfinite(table[f"{LOSS}_mean"])
    if candidate.any():
        sets = seeds[candidate].value_counts(sort=False)
        most = max(sets.index, key=lambda found: (len(found), sets[found]))
        candidate &= seeds.map(most.__eq__)
    return table.assign(candidate=candidate).sort_values(
        ["candidate", f"{LOSS}_mean", f"{cost_column(runs)[0]}_mean"],
        ascending=[False, True, True],
        kind="stable",
        ignore_index=True,
    )
