"""Table `tuned_lr`: the tuned learning rate of each batch size, and what linear and √ scaling predict."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from batchscape.config.base import shortest_decimal

# A tuned rate this close to an end of the range, as a fraction of its logarithmic width, is on the edge.
EDGE_FRACTION = 0.05


def tabulate(trials: pd.DataFrame, *, small_batch_size: int, learning_rate_range: Sequence[float]) -> pd.DataFrame:
    """Return one row for each batch size, ascending: tuned learning rate, scaling predictions and number of trials.

    `linear_learning_rate` and `sqrt_learning_rate` start from the tuned rate of `small_batch_size` (Goyal et al. 2017;
    Krizhevsky 2014); nan if every trial of it diverged (its rate is then only the lowest one tried)
    or if it has no trials. `edge` is `low`, `high` or `none`; a rate on an edge is a bound, not an optimum.
    """
    table = pd.DataFrame([_tuned(int(size), rows, learning_rate_range) for size, rows in trials.groupby("batch_size")])
    small = table[(table["batch_size"] == small_batch_size) & np.isfinite(table["validation_loss"])]
    base = np.nan if small.empty else small["tuned_learning_rate"].iloc[0]
    scaling = table["batch_size"] / small_batch_size
    table.insert(2, "linear_learning_rate", base * scaling)
    table.insert(3, "sqrt_learning_rate", base * scaling**0.5)
    return table


def _tuned(batch_size: int, trials: pd.DataFrame, learning_rate_range: Sequence[float]) -> dict[str, object]:
    low, high = learning_rate_range
    best = trials[trials["is_best"] == 1].iloc[0]
    position = np.log(best["learning_rate"] / low) / np.log(high / low)
    edge = "low" if position <= EDGE_FRACTION else "high" if position >= 1 - EDGE_FRACTION else "none"
    advice = {
        "low": f"let tuning.learning_rate_range begin below {shortest_decimal(low)}",
        "high": f"let tuning.learning_rate_range end above {shortest_decimal(high)}",
        "none": "inside the range",
    }[edge]
    return {
        "batch_size": batch_size,
        "tuned_learning_rate": float(best["learning_rate"]),
        "validation_loss": float(best["validation_loss"]),
        "edge": edge,
        "advice": f"every trial diverged; {advice}" if np.isinf(best["validation_loss"]) else advice,
        "n_trials": len(trials),
        "n_diverged_trials": int(np.isinf(trials["validation_loss"]).sum()),
    }
