"""Table `best_lr`: the best learning rate of each batch size, and whether it is on the edge of the tried rates."""

import numpy as np
import pandas as pd

from batchscape.config.base import shortest_decimal


def tabulate(lr_grid: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each batch size: the learning rate with the lowest mean of the best validation loss.

    Learning rates at which any seed diverged are excluded. `edge` is `low`, `high`, `both` (one rate was tried) or
    `none`; a best rate on an edge is a bound, not an optimum (Godbole et al., Deep Learning Tuning Playbook 2023).
    """
    return pd.DataFrame([_best(int(size), rows) for size, rows in lr_grid.groupby("batch_size")])


def edge_of_range(rate: float, rates: pd.Series) -> str:
    """Return on which edge of the tried rates a rate is: `low`, `high`, `both` or `none`."""
    lowest, highest = rate == rates.min(), rate == rates.max()
    return "both" if lowest and highest else "low" if lowest else "high" if highest else "none"


def _best(batch_size: int, rows: pd.DataFrame) -> dict[str, object]:
    rates = rows["learning_rate"]
    loss = "best_validation_loss"
    candidates = rows[(rows["n_diverged"] == 0) & rows[f"{loss}_mean"].notna()]
    if candidates.empty:
        return {
            "batch_size": batch_size,
            "best_learning_rate": np.nan,
            f"{loss}_mean": np.nan,
            f"{loss}_sd": np.nan,
            "n_seeds": 0,
            "n_budget_spent": 0,
            "edge": "low",
            "advice": f"every learning rate diverged; add one below {shortest_decimal(rates.min())}",
        }
    best = candidates.loc[candidates[f"{loss}_mean"].idxmin()]
    rate = float(best["learning_rate"])
    edge = edge_of_range(rate, rates)
    sides = {"low": "below", "high": "above", "both": "below and above"}
    diverged = rows[(rates > rate) & (rows["n_diverged"] > 0)]["learning_rate"]
    if edge in sides:
        advice = f"add a learning rate {sides[edge]} {shortest_decimal(rate)}"
    elif not diverged.empty and diverged.min() == rates[rates > rate].min():
        advice = f"the next rate, {shortest_decimal(diverged.min())}, diverged; add one between"
    else:
        advice = "inside the range"
    if best["n_budget_spent"] > 0:
        advice += f"; {int(best['n_budget_spent'])} of its runs were ended by their budget, increase it"
    return {
        "batch_size": batch_size,
        "best_learning_rate": rate,
        f"{loss}_mean": best[f"{loss}_mean"],
        f"{loss}_sd": best[f"{loss}_sd"],
        "n_seeds": int(best["n_seeds"]),
        "n_budget_spent": int(best["n_budget_spent"]),
        "edge": edge,
        "advice": advice,
    }
