"""Table `confirmation`: what the finalists reach with seeds that took no part in their choice."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from batchscape.report.claims.t_test import t_test
from batchscape.report.ranking import LOSS, cost_column, rank_settings
from batchscape.report.settings import SETTING_COLUMNS
from batchscape.report.tables.lr_grid import test_columns
from batchscape.report.tables.recommendation import VALUES, classify, paired_differences

CHOSEN, UNCLEAR = "chosen", "not distinguishable"


def tabulate(confirmation: pd.DataFrame, *, metrics: Sequence[str]) -> pd.DataFrame:
    """Return one row for each finalist: first the chosen one, then the others by their mean validation loss.

    The rule is that of the table `recommendation`, applied to the seeds of the confirmation alone: the setting with the
    lowest mean of the best validation loss, or the cheapest one that is equivalent to it. Losses and metrics have their
    mean, standard deviation and the 95 % t interval of the mean over seeds. `difference_to_chosen` is the mean
    difference of the best validation loss to that of the first row, paired by seed, with its 95 % t interval. `choice`
    is `chosen`; `not distinguishable` if the interval contains 0, or does not exist because there is one seed; `worse`
    or `better` if it lies above or below 0; `diverged` if a run of the setting diverged, in the grid or here;
    `incomplete` if not all of its seeds are trained yet.

    Args:
        confirmation: The rows of the runs of the confirmation.
        metrics: Names of the metrics.
    """
    measured = [LOSS, *(f"validation_{name}_at_best" for name in metrics), *test_columns(confirmation, metrics)]
    table = rank_settings(confirmation, [*measured, *(value for value in VALUES if value != LOSS)])
    diverged_in_grid = confirmation.loc[confirmation["diverged_in_grid"] == 1, "setting"]
    table["candidate"] &= ~table["setting"].isin(diverged_in_grid)
    table = table.sort_values("candidate", ascending=False, kind="stable", ignore_index=True)
    cost = table[f"{cost_column(confirmation)[0]}_mean"]
    choices = classify(table.join(paired_differences(confirmation, table)), cost)
    chosen = choices.str.endswith("cheapest equivalent").to_numpy()
    table = table.iloc[np.argsort(~chosen, kind="stable")].reset_index(drop=True)
    differences = paired_differences(confirmation, table).rename(columns={"difference_to_best": "difference_to_chosen"})
    kinds = np.select(
        [
            (table["n_diverged"] > 0) | table["setting"].isin(diverged_in_grid),
            ~table["candidate"],
            table.index == 0,
            differences["ci95_low"] > 0,
            differences["ci95_high"] < 0,
        ],
        ["diverged", "incomplete", CHOSEN, "worse", "better"],
        UNCLEAR,
    )
    table = table.drop(columns="candidate").join(_intervals(confirmation, table["setting"], measured))
    first = [*SETTING_COLUMNS, *(f"{value}_{end}" for value in measured for end in ("mean", "sd", *INTERVAL))]
    rest = [name for name in table.columns if name not in first]
    return table[[*first, *rest]].join(differences).assign(choice=kinds)


INTERVAL = ("ci95_low", "ci95_high")


def _intervals(runs: pd.DataFrame, settings: pd.Series, values: Sequence[str]) -> pd.DataFrame:
    """Return the 95 % t interval of the mean of each value over the seeds of each setting that did not diverge."""
    completed = runs[runs["status"] != "diverged"]
    rows = []
    for setting in settings:
        of_setting = completed[completed["setting"] == setting]
        ends = {value: t_test(of_setting[value].dropna().to_numpy())[1:3] for value in values}
        rows.append(
            {f"{value}_{name}": end for value in values for name, end in zip(INTERVAL, ends[value], strict=True)}
        )
    return pd.DataFrame(rows)
