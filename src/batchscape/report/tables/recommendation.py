"""Table `recommendation`: the setting with the lowest validation loss, and the cheapest one that is as good."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from batchscape.report.claims.t_test import t_test
from batchscape.report.ranking import COSTS, LOSS, cost_column, rank_settings
from batchscape.report.settings import constant_lr_settings
from batchscape.report.tables.lr_grid import test_columns

# With fewer seeds, the interval is so wide that one bad seed makes all settings equivalent.
MIN_SEEDS_FOR_EQUIVALENT = 3
# Choices of settings that are no candidates.
EXCLUDED = ("diverged", "incomplete")
VALUES = (LOSS, "best_epoch", "best_evaluation", *COSTS)


def tabulate(
    runs: pd.DataFrame, best_lr: pd.DataFrame, tuned_lr: pd.DataFrame | None = None, *, metrics: Sequence[str]
) -> pd.DataFrame:
    """Return one row for each setting, the one with the lowest mean of the best validation loss first.

    `difference_to_best` is the mean difference of a setting's loss to that of the first row, paired by seed, with its
    95 % t interval, `ci95_low` and `ci95_high` (nan for one seed). `choice` classifies the settings:

    - `lowest loss`: the first row.
    - `equivalent`: there are at least three seeds, the interval contains 0, and the mean is within one standard error
      of the first row's (the one-standard-error rule, Breiman et al. 1984). The last condition is needed because the
      interval of three seeds is so wide that even twice the loss can be inside.
    - `cheapest equivalent`: of these and the first row, the one that takes the shortest time to its best epoch; `lowest
      loss and cheapest equivalent` if that is the first row itself. Settings that are best at the first evaluation in
      every seed are excluded, unless this is true of the first row too: they are cheap because they have not learned.
    - `unclear`: the interval contains 0, or is nan because there is one seed, and the setting is not equivalent.
    - `worse`: the interval is above 0.
    - `diverged`: a run diverged, so the setting is excluded.
    - `incomplete`: its runs do not have the seeds of most others yet, so the setting is excluded.

    Time is CPU time if all runs trained on a CPU, where other jobs on the same cores increase wall time; else it is
    wall time.

    `validation_<metric>_at_best` has the metrics at the best epoch. If the data has a test side, `test_loss` and
    `test_<metric>` are those of the best weights there. They have no part in the choice.

    `edge` and `advice` are those of `best_lr` or `tuned_lr` if the setting is the best one of its batch size. A rate is
    not on an edge if another run of the batch size, such as the tuned one, has a rate beyond it.
    """
    at_best = [f"validation_{name}_at_best" for name in metrics]
    table = rank_settings(runs, [*VALUES, *at_best, *test_columns(runs, metrics)])
    table = table.join(paired_differences(runs, table))
    table["choice"] = classify(table, table[f"{cost_column(runs)[0]}_mean"])
    return _with_edges(table, best_lr, tuned_lr).drop(columns="candidate")


def paired_differences(runs: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Return the paired difference of each row's loss to the first row's, with its 95 % t interval.

    Args:
        runs: The runs of the settings.
        table: Rows of `rank_settings`; those that are no candidates have nan.
    """
    names = ["difference_to_best", "ci95_low", "ci95_high"]
    if not table["candidate"].any():
        return pd.DataFrame(np.nan, index=table.index, columns=names)
    losses = runs[runs["status"] != "diverged"].pivot(index="seed", columns="setting", values=LOSS)
    differences = losses.sub(losses[table["setting"].iloc[0]], axis=0)
    intervals = {setting: t_test(values.dropna().to_numpy())[:3] for setting, values in differences.items()}
    rows = pd.DataFrame.from_dict(intervals, orient="index", columns=names)
    return rows.reindex(table["setting"].where(table["candidate"])).reset_index(drop=True)


def classify(table: pd.DataFrame, cost: pd.Series) -> pd.Series:
    """Return the choice of each row, as `tabulate` describes it.

    Args:
        table: Rows of `rank_settings`, with their `paired_differences`.
        cost: The mean time of each to its best epoch.
    """
    if not table["candidate"].any():
        return pd.Series("diverged", index=table.index)
    first = table.iloc[0]
    max_loss = first[f"{LOSS}_mean"] + first[f"{LOSS}_sd"] / np.sqrt(first["n_seeds"])
    worse = table["ci95_low"] > 0
    equivalent = (
        table["candidate"]
        & ~worse
        & (table[f"{LOSS}_mean"] <= max_loss)
        & (table["n_seeds"] >= MIN_SEEDS_FOR_EQUIVALENT)
    )
    # What is best at the first evaluation may have learned nothing, which costs nothing.
    equivalent &= (table["best_evaluation_mean"] > 1) | (first["best_evaluation_mean"] <= 1)
    equivalent.iloc[0] = True
    kinds = np.select(
        [table["n_diverged"] > 0, ~table["candidate"], equivalent, worse],
        [*EXCLUDED, "equivalent", "worse"],
        "unclear",
    )
    choices = pd.Series(kinds, index=table.index)
    costs = cost[equivalent]
    cheapest = costs.idxmin() if costs.notna().any() else table.index[0]
    choices.loc[cheapest] = "cheapest equivalent"
    choices.iloc[0] = "lowest loss and cheapest equivalent" if cheapest == table.index[0] else "lowest loss"
    return choices


def _has_rate_beyond(table: pd.DataFrame, index: int, edge: str) -> bool:
    """Return whether a run of the batch size has a rate beyond that of a row, on the side of its edge."""
    rate = table.at[index, "learning_rate"]
    rates = table.loc[table["batch_size"] == table.at[index, "batch_size"], "learning_rate"]
    lower, higher = rates.min() < rate, rates.max() > rate
    return {"low": lower, "high": higher, "both": lower and higher}.get(edge, False)


def _with_edges(table: pd.DataFrame, best_lr: pd.DataFrame, tuned_lr: pd.DataFrame | None) -> pd.DataFrame:
    """Add `edge` and `advice` to the best setting of each batch size."""
    constant = table.index.isin(constant_lr_settings(table).index)
    best_rates = [(best_lr.rename(columns={"best_learning_rate": "learning_rate"}), constant)]
    if tuned_lr is not None:
        tuned = table["setting"].str.endswith("-lrtuned").to_numpy()
        best_rates.append((tuned_lr.rename(columns={"tuned_learning_rate": "learning_rate"}), tuned))
    table = table.assign(edge="none", advice="none")
    for best, rows in best_rates:
        if best.empty:  # there is no run of a constant rate; an empty table has no columns
            continue
        edges = best.set_index(["batch_size", "learning_rate"])
        for index in table.index[rows]:
            key = (table.at[index, "batch_size"], table.at[index, "learning_rate"])
            if key in edges.index and not _has_rate_beyond(table, index, edges.loc[key, "edge"]):
                table.loc[index, ["edge", "advice"]] = edges.loc[key, ["edge", "advice"]].to_numpy()
    return table
