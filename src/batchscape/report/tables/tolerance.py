"""Table `tolerance`: the range of learning rates that are nearly as good as the best one, by batch size."""

import numpy as np
import pandas as pd

from batchscape.report.optimum import find_tolerated_range, mean_over_seeds
from batchscape.report.resampling import Estimate, estimate_over_seeds
from batchscape.report.tables.scaling import Losses, losses_of_grid

COLUMNS = [
    *("batch_size", "best_learning_rate", "lowest_learning_rate", "highest_learning_rate"),
    *("width", "ci95_low", "ci95_high", "low_end", "high_end", "n_rates", "n_seeds"),
]


def tabulate(runs: pd.DataFrame, *, margin: float) -> pd.DataFrame:
    """Return one row for each batch size: the range of constant rates whose mean loss is within a margin of the best.

    `width` is the ratio of its ends, which are interpolated, with its interval over seeds (`estimate_width`).

    Args:
        runs: The table `runs`.
        margin: The relative difference of losses, such as 0.05.
    """
    losses = losses_of_grid(runs)
    sizes = dict.fromkeys(losses.batch_sizes.tolist())
    return pd.DataFrame([_row(size, losses, margin) for size in sizes], columns=COLUMNS)


def _row(batch_size: int, losses: Losses, margin: float) -> dict[str, object]:
    columns = losses.batch_sizes == batch_size
    positions, values = losses.positions[columns], losses.values[:, columns]
    means = mean_over_seeds(values)
    found = find_tolerated_range(positions, means, margin)
    width = estimate_width(positions, values, margin)
    is_known = not np.isnan(found.low)
    return {
        "batch_size": batch_size,
        "best_learning_rate": _rate(positions[np.nanargmin(means)]) if is_known else np.nan,
        "lowest_learning_rate": _rate(found.low),
        "highest_learning_rate": _rate(found.high),
        "width": width.value,
        "ci95_low": width.ci95_low,
        "ci95_high": width.ci95_high,
        "low_end": found.low_end,
        "high_end": found.high_end,
        "n_rates": int(columns.sum()),
        "n_seeds": len(values),
    }


def estimate_width(positions: np.ndarray, values: np.ndarray, margin: float) -> Estimate:
    """Return the ratio of the ends of the tolerated range (`find_tolerated_range`), with its interval over seeds.

    Where an end is cut by the edge of the tried rates or by a rate that diverged, the width is at least the given one,
    and the interval has no upper end.

    Args:
        positions: Logarithms of the rates, ascending, shape (n,).
        values: Losses, shape (seeds, n): inf for a run that diverged, nan for one that does not exist.
        margin: The relative difference of losses.
    """
    found = find_tolerated_range(positions, mean_over_seeds(values), margin)

    def log_width(values: np.ndarray) -> np.ndarray:
        part = find_tolerated_range(positions, mean_over_seeds(values), margin)
        return np.array([part.high - part.low])

    width = estimate_over_seeds(log_width, values)[0].exp()
    is_cut = {found.low_end, found.high_end} != {"inside"}
    return width._replace(
        ci95_low=max(width.ci95_low, 1.0) if np.isfinite(width.ci95_low) else np.nan,
        ci95_high=np.inf if is_cut and np.isfinite(width.ci95_high) else width.ci95_high,
    )


def _rate(position: float) -> float:
    """Return the learning rate of a logarithm; rounded, because a tried rate must be written as it was given."""
    return float(f"{np.exp(position):.12g}")
