"""Synthetic tables for tests of what is computed from them."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from batchscape.report.tables import lr_grid

DIVERGED = None


def synthetic_runs(
    losses: Mapping[tuple[int, float], Sequence[float | None]],
    seconds: Mapping[tuple[int, float], float] | None = None,
    device: str = "cpu",
) -> pd.DataFrame:
    """Return the table `runs` of synthetic runs.

    Args:
        losses: best validation loss of each seed (or `DIVERGED`), by batch size and learning rate.
        seconds: CPU seconds to the best epoch, by batch size and learning rate; 1 where absent.
        device: the device that all runs were trained on.
    """
    rows = []
    for (batch_size, rate), by_seed in losses.items():
        for seed, loss in enumerate(by_seed):
            cost = np.nan if loss is DIVERGED else (seconds or {}).get((batch_size, rate), 1.0)
            values = dict.fromkeys((*lr_grid.LOSSES, "validation_accuracy_at_best", *lr_grid.COSTS), cost)
            values["best_evaluation"] = cost
            rows.append(
                {
                    **{"run": f"bs{batch_size}-lr{rate:g}-seed{seed}", "setting": f"bs{batch_size}-lr{rate:g}"},
                    **{"batch_size": batch_size, "learning_rate": rate, "seed": seed},
                    "status": "diverged" if loss is DIVERGED else "converged",
                    **values,
                    "seconds_to_best": 100 - cost,
                    "best_validation_loss": np.nan if loss is DIVERGED else loss,
                    "device": device,
                }
            )
    return pd.DataFrame(rows)
