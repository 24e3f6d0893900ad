"""When each run first reached the target loss."""

import numpy as np
import pandas as pd

from batchscape.report.settings import SETTING_COLUMNS


def common_target(runs: pd.DataFrame) -> float:
    """Return the least validation loss that every batch size reaches with all seeds at one of its learning rates.

    `runs` has a row a run: batch_size, setting, status and best_validation_loss. What a setting reaches is the
    greatest of its runs' least losses (infinite if one diverged), what a batch size reaches is the least of its
    settings, and the target is the greatest of the batch sizes. Of a batch size of which every setting has a diverged
    run nothing is asked; nan if that is so of all.
    """
    losses = runs["best_validation_loss"].mask(runs["status"].eq("diverged")).fillna(np.inf)
    by_setting = losses.groupby([runs["batch_size"], runs["setting"]]).max()
    by_batch_size = by_setting.groupby("batch_size").min()
    return float(by_batch_size[np.isfinite(by_batch_size)].max())


def tabulate(history: pd.DataFrame, *, target_loss: float | None) -> pd.DataFrame:
    """Return one row a run: the epochs, steps and examples after which its validation loss was first at the target.

    The loss is known after each epoch, so these are whole epochs. nan if the run never reached the target;
    `target_loss` None takes the one that all batch sizes reach.
    """
    run = [*SETTING_COLUMNS, "seed", "status"]
    least = history.groupby(run)["validation_loss"].min().rename("best_validation_loss").reset_index()
    target = common_target(least) if target_loss is None else target_loss
    reached = history[history["validation_loss"] <= target].sort_values("epoch")
    first = reached.groupby(run)[["epoch", "step", "examples"]].first().reset_index()
    table = least[run].merge(first, on=run, how="left")
    table = table.rename(columns={"epoch": "epochs", "step": "steps"})
    table.insert(len(run), "target_loss", target)
    return table
