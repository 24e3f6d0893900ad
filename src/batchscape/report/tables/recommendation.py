"""Which batch size and learning rate to train with: the least validation loss, and the cheapest that is as good."""

import numpy as np
import pandas as pd

from batchscape.report.claims.t_test import t_test
from batchscape.report.settings import SETTING_COLUMNS, constant_lr_settings
from batchscape.report.tables.over_seeds import over_seeds

LOSS = "best_validation_loss"
# With fewer, an interval says nothing, and one bad seed makes all settings equal.
SEEDS_FOR_EQUAL = 3
VALUES = [LOSS, "best_epoch", "seconds_to_best", "cpu_seconds_to_best"]


def tabulate(runs: pd.DataFrame, best_lr: pd.DataFrame, tuned_lr: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return one row for each setting, the one with the least mean of the least validation loss first.

    `difference_to_best` is the mean over seeds of a setting's loss less that of the first one, seed by seed, `ci95_low`
    and `ci95_high` the ends of its 95 % t interval (nan for one seed). `choice` says what this makes of the setting:

    - `lowest loss`: the first one.
    - `equivalent`: there are at least three seeds, the interval contains 0, and the mean is within one standard error
      of the first row's (the one-standard-error rule, Breiman et al. 1984). The last condition is needed because the
      interval of three seeds is so wide that even twice the loss can be inside.
    - `cheapest equivalent`: of these and the first one, the one that takes the least time to its best epoch; `least
      loss and cheapest equivalent` if that is the first one itself. One whose best epoch is the first in every seed
      is not chosen unless that holds of the first one too: it costs little for it has not learned.
    - `unclear`: the interval holds 0, or there is none because there is one seed, and the rest does not hold.
    - `worse`: the interval does not hold 0. `diverged`: a seed of it diverged, so it is no candidate.

    Time is CPU time if all runs trained on a CPU, for jobs that share its cores stretch the wall time; else wall time.
    `edge` and `advice` are those of `best_lr` or `tuned_lr` where the setting is the best one of its batch size; but a
    rate is on no edge if the search looked beyond it, and the tuned arm trained there.
    """
    table = over_seeds(runs, SETTING_COLUMNS, VALUES)
    table = table[
        [*SETTING_COLUMNS, *(f"{value}_{part}" for value in VALUES for part in ("mean", "sd")), "n_seeds"]
    ].assign(
        n_diverged=table["n_diverged"],
        n_max_epochs=runs["status"].eq("max_epochs").groupby([runs[key] for key in SETTING_COLUMNS]).sum().to_numpy(),
    )
    cost = "cpu_seconds_to_best_mean" if runs["device"].eq("cpu").all() else "seconds_to_best_mean"
    candidate = table["n_diverged"].eq(0) & np.isfinite(table[f"{LOSS}_mean"])
    table = table.assign(candidate=candidate).sort_values(
        ["candidate", f"{LOSS}_mean", cost], ascending=[False, True, True], kind="stable", ignore_index=True
    )
    table = pd.concat([table, _differences(runs, table)], axis=1)
    table["choice"] = _choices(table, table[cost])
    return _with_edges(table, best_lr, tuned_lr).drop(columns="candidate")


def _differences(runs: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Return the paired difference of each row's loss to the first row's, with its 95 % t interval."""
    names = ["difference_to_best", "ci95_low", "ci95_high"]
    if not table["candidate"].any():
        return pd.DataFrame(np.nan, index=table.index, columns=names)
    losses = runs[runs["status"] != "diverged"].pivot(index="seed", columns="setting", values=LOSS)
    differences = losses.sub(losses[table["setting"].iloc[0]], axis=0)
    intervals = {setting: t_test(values.dropna().to_numpy())[:3] for setting, values in differences.items()}
    rows = pd.DataFrame.from_dict(intervals, orient="index", columns=names)
    return rows.reindex(table["setting"].where(table["candidate"])).reset_index(drop=True)


def _choices(table: pd.DataFrame, cost: pd.Series) -> pd.Series:
    if not table["candidate"].any():
        return pd.Series("diverged", index=table.index)
    first = table.iloc[0]
    reach = first[f"{LOSS}_mean"] + first[f"{LOSS}_sd"] / np.sqrt(first["n_seeds"])
    apart = (table["ci95_low"] > 0) | (table["ci95_high"] < 0)
    equal = table["candidate"] & ~apart & (table[f"{LOSS}_mean"] <= reach) & (table["n_seeds"] >= SEEDS_FOR_EQUAL)
    # Where the best epoch is the first, nothing was learned, and that costs nothing.
    equal &= (table["best_epoch_mean"] > 1) | (first["best_epoch_mean"] <= 1)
    equal.iloc[0] = True
    kinds = np.select([~table["candidate"], equal, apart], ["diverged", "equivalent", "worse"], "unclear")
    choices = pd.Series(kinds, index=table.index)
    costs = cost[equal]
    cheapest = costs.idxmin() if costs.notna().any() else table.index[0]
    choices.loc[cheapest] = "cheapest equivalent"
    choices.iloc[0] = "lowest loss and cheapest equivalent" if cheapest == table.index[0] else "lowest loss"
    return choices


def _looked_beyond(table: pd.DataFrame, place: int, edge: str) -> bool:
    """Say whether a run of the batch size has a rate beyond that of a row, on the side of its edge."""
    rate = table.at[place, "learning_rate"]
    rates = table.loc[table["batch_size"] == table.at[place, "batch_size"], "learning_rate"]
    lower, higher = rates.min() < rate, rates.max() > rate
    return {"low": lower, "high": higher, "both": lower and higher}.get(edge, False)


def _with_edges(table: pd.DataFrame, best_lr: pd.DataFrame, tuned_lr: pd.DataFrame | None) -> pd.DataFrame:
    """Say of the best setting of each batch size whether its learning rate is on the edge of what was tried."""
    constant = table.index.isin(constant_lr_settings(table).index)
    found = [(best_lr.rename(columns={"best_learning_rate": "learning_rate"}), constant)]
    if tuned_lr is not None:
        tuned = table["setting"].str.endswith("-lrtuned").to_numpy()
        found.append((tuned_lr.rename(columns={"tuned_learning_rate": "learning_rate"}), tuned))
    table = table.assign(edge="none", advice="none")
    for best, rows in found:
        if best.empty:  # no run of a constant rate: a table without rows has no columns either
            continue
        known = best.set_index(["batch_size", "learning_rate"])
        for place in table.index[rows]:
            key = (table.at[place, "batch_size"], table.at[place, "learning_rate"])
            if key in known.index and not _looked_beyond(table, place, known.loc[key, "edge"]):
                table.loc[place, ["edge", "advice"]] = known.loc[key, ["edge", "advice"]].to_numpy()
    return table
