"""Table `tuned_lr`: what the search found for each batch size, what linear and √ scaling predict, and what it cost."""

import numpy as np
import pandas as pd

from batchscape.config.base import shortest_decimal
from batchscape.config.tuning import names_of

# A tuned rate this close to an end of the tried rates, as a fraction of their logarithmic width, is on the edge.
EDGE_FRACTION = 0.05
STAGES = ("grid", "search", "extension", "finalist")


def tabulate(trials: pd.DataFrame, *, small_batch_size: int, tuning_budget: float) -> pd.DataFrame:
    """Return one row for each batch size, ascending: tuned learning rate, scaling predictions, and the cost.

    `linear_learning_rate` and `sqrt_learning_rate` start from the tuned rate of `small_batch_size` (Goyal et al. 2017;
    Krizhevsky 2014); nan if every trial of it diverged (its rate is then only the lowest one tried) or if it has no
    trials. `edge` is `low`, `high` or `none`; a rate on an edge is a bound, not an optimum. A rate is on the high edge
    too if only one higher rate was tried, with a lower loss: it was tried to see whether training fails there
    (`tuning.margin`), and may be beyond those that can be chosen. `tuned_<hyperparameter>` are the others that were
    searched. `budget` and the `spent_<stage>` are in complete trainings.
    """
    table = pd.DataFrame([_tuned(int(size), rows, tuning_budget) for size, rows in trials.groupby("batch_size")])
    small = table[(table["batch_size"] == small_batch_size) & np.isfinite(table["validation_loss"])]
    base = np.nan if small.empty else small["tuned_learning_rate"].iloc[0]
    scaling = table["batch_size"] / small_batch_size
    table.insert(2, "linear_learning_rate", base * scaling)
    table.insert(3, "sqrt_learning_rate", base * scaling**0.5)
    return table


def _tuned(batch_size: int, trials: pd.DataFrame, tuning_budget: float) -> dict[str, object]:
    best = trials[trials["is_best"] == 1].iloc[0]
    low, high = trials["learning_rate"].min(), trials["learning_rate"].max()
    position = np.log(best["learning_rate"] / low) / np.log(high / low) if low < high else 0.5
    is_high = position >= 1 - EDGE_FRACTION or _falls_beyond(trials, best["learning_rate"])
    edge = "low" if position <= EDGE_FRACTION else "high" if is_high else "none"
    advice = {
        "low": f"let tuning.hyperparameters.learning_rate begin below {shortest_decimal(low)}",
        "high": f"let tuning.hyperparameters.learning_rate end above {shortest_decimal(high)}",
        "none": "inside the range",
    }[edge]
    return {
        "batch_size": batch_size,
        "tuned_learning_rate": float(best["learning_rate"]),
        **{f"tuned_{name}": float(best[name]) for name in names_of(best)},
        "validation_loss": float(best["validation_loss"]),
        "edge": edge,
        "advice": f"every trial diverged; {advice}" if np.isinf(best["validation_loss"]) else advice,
        "n_trials": len(trials),
        "n_diverged_trials": int(np.isinf(trials["validation_loss"]).sum()),
        "n_pruned_trials": int((trials["n_pruned"] > 0).sum()),
        "budget": tuning_budget,
        **{f"spent_{stage}": trials.loc[trials["stage"] == stage, "trainings"].sum() for stage in STAGES},
    }


def _falls_beyond(trials: pd.DataFrame, rate: float) -> bool:
    """Return whether the only higher rate that was tried has a lower loss, in trials of the same length."""
    short = trials[(trials["stage"] != "finalist") & (trials["n_pruned"] == 0)]
    losses = short.groupby("learning_rate")["validation_loss"].min()
    higher = losses[losses.index > rate]
    return len(higher) == 1 and rate in losses.index and bool(higher.iloc[0] < losses[rate])
