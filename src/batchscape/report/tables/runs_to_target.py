"""Table `runs_to_target`: when each run first reached the target loss."""

import numpy as np
import pandas as pd

from batchscape.report.settings import SETTING_COLUMNS


def common_target(runs: pd.DataFrame) -> float:
    """Return the lowest validation loss that every batch size reaches with all seeds at one of its learning rates.

    A setting reaches the maximum of the best losses of its runs (infinity if one diverged), a batch size the minimum
    over its settings, and the target is the maximum over batch sizes. Batch sizes with a diverged run in every setting
    are ignored.

    Args:
        runs: One row for each run, with the columns batch_size, setting, status and best_validation_loss.

    Returns:
        The target loss; nan if there is none.
    """
    losses = runs["best_validation_loss"].mask(runs["status"].eq("diverged")).fillna(np.inf)
    by_setting = losses.groupby([runs["batch_size"], runs["setting"]]).max()
    by_batch_size = by_setting.groupby("batch_size").min()
    return float(by_batch_size[np.isfinite(by_batch_size)].max())


def tabulate(history: pd.DataFrame, *, target_loss: float | None) -> pd.DataFrame:
    """Return one row for each run: the epochs, steps and examples until its validation loss first reached the target.

    The validation loss is known only at the end of an epoch. Values are nan if the run never reached the target. If
    `target_loss` is None, `common_target` is used.
    """
    run = [*SETTING_COLUMNS, "seed", "status"]
    best = history.groupby(run)["validation_loss"].min().rename("best_validation_loss").reset_index()
    target = common_target(best) if target_loss is None else target_loss
    reached = history[history["validation_loss"] <= target].sort_values("epoch")
    first = reached.groupby(run)[["epoch", "step", "examples"]].first().reset_index()
    table = best[run].merge(first, on=run, how="left")
    table = table.rename(columns={"epoch": "epochs", "step": "steps"})
    table.insert(len(run), "target_loss", target)
    return table
