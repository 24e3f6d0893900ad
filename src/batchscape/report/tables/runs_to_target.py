"""Table `runs_to_target`: when each run first reached each target."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from batchscape.report.settings import SETTING_COLUMNS, constant_batch_settings
from batchscape.report.targets import LOSS, TARGET_COLUMNS

RUN_COLUMNS = [*SETTING_COLUMNS, "seed", "status"]
QUANTITIES = ["epochs", "steps", "examples", "seconds", "cpu_seconds"]
"""What it takes to reach a target."""


def common_target(runs: pd.DataFrame) -> float:
    """Return the lowest validation loss that every batch size reaches with all seeds at one of its learning rates.

    A setting reaches the maximum of the best losses of its runs (infinity if one diverged), a batch size the minimum
    over its settings, and the target is the maximum over batch sizes. Batch sizes with a diverged run in every setting
    are ignored, and so are settings whose batch size changes.

    Args:
        runs: One row for each run, with the columns batch_size, setting, status and best_validation_loss.

    Returns:
        The target loss; nan if there is none.
    """
    runs = constant_batch_settings(runs)
    losses = runs["best_validation_loss"].mask(runs["status"].eq("diverged")).fillna(np.inf)
    by_setting = losses.groupby([runs["batch_size"], runs["setting"]]).max()
    by_batch_size = by_setting.groupby("batch_size").min()
    return float(by_batch_size[np.isfinite(by_batch_size)].max())


def tabulate(history: pd.DataFrame, *, targets: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return the epochs, steps, examples and time until each run first reached each target.

    Time is that of training, without evaluations. `evaluations` counts the evaluations up to the one at which the
    target was reached; if it was the first one, all these values are upper bounds.

    Losses and metrics are known only at evaluations. A value that equals the target reaches it, nan never does.

    Args:
        history: One row for each evaluation of each run, with the columns `validation_loss` and `validation_<metric>`.
        targets: Each with `name` (`loss` or a metric), `value` and `higher_is_better`. If there are none,
            `common_target` is the only one.

    Returns:
        One row for each target and run, those of the first target first. Values are nan if the run never reached it.
    """
    history = history.sort_values("epoch", kind="stable")
    by_run = history.groupby(RUN_COLUMNS)
    history = history.assign(
        evaluations=by_run.cumcount() + 1,
        seconds=by_run["train_seconds"].cumsum(),
        cpu_seconds=by_run["train_cpu_seconds"].cumsum(),
    )
    best = history.groupby(RUN_COLUMNS)["validation_loss"].min().rename("best_validation_loss").reset_index()
    if not targets:
        targets = [{"name": LOSS, "value": common_target(best), "higher_is_better": False}]
    return pd.concat([_reach(history, best[RUN_COLUMNS], **target) for target in targets], ignore_index=True)


def _reach(
    history: pd.DataFrame, runs: pd.DataFrame, *, name: str, value: float, higher_is_better: bool
) -> pd.DataFrame:
    measured = history[f"validation_{name}"]
    reached = history[measured >= value if higher_is_better else measured <= value].rename(
        columns={"epoch": "epochs", "step": "steps"}
    )
    first = reached.groupby(RUN_COLUMNS)[[*QUANTITIES, "evaluations"]].first().reset_index()
    table = runs.merge(first, on=RUN_COLUMNS, how="left")
    for offset, (column, cell) in enumerate(zip(TARGET_COLUMNS, (name, value), strict=True)):
        table.insert(len(RUN_COLUMNS) + offset, column, cell)
    return table
