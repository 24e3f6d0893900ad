"""Lowest losses, time per epoch, and epochs and time to the best epoch, by batch size at the fixed learning rate."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import plotnine as p9

from batchscape.report.figures import style
from batchscape.report.figures.by_batch_size import plot_by_batch_size
from batchscape.report.headings import heading
from batchscape.report.measures import Measures
from batchscape.report.settings import at_learning_rate

# CPU time, because jobs that share the cores of the machine increase each other's wall time.
COSTS = ("best_epoch", "epoch_cpu_seconds", "cpu_seconds_to_best")


def panel_titles(measures: Mapping[str, Any]) -> dict[str, str]:
    """Return the titles of the panels by the column that each shows."""
    words = Measures.from_settings(measures)
    metric = (f"validation_{words.first.name}_at_best",) if words.first else ()
    return {column: heading(column, words) for column in ("min_train_loss", "best_validation_loss", *metric, *COSTS)}


def draw(
    runs: pd.DataFrame, table: pd.DataFrame, *, fixed_learning_rate: float, measures: Mapping[str, Any]
) -> p9.ggplot:
    """`runs` gives the points of seeds, `table` means and standard deviations."""
    panels = panel_titles(measures)
    rows = at_learning_rate(runs[runs["status"] != "diverged"], fixed_learning_rate)
    seeds = pd.concat([rows[["batch_size"]].assign(panel=name, value=rows[column]) for column, name in panels.items()])
    summary = pd.concat(
        [
            table[["batch_size"]].assign(panel=name, mean=table[f"{column}_mean"], sd=table[f"{column}_sd"])
            for column, name in panels.items()
        ]
    )
    return plot_by_batch_size(seeds, summary, scales="free_y") + p9.labs(
        title=f"Where training ends and what it costs, {style.learning_rate_label(fixed_learning_rate)}",
        subtitle=style.describe_spread(table) + "\nBest epoch: the epoch with the lowest validation loss",
        x="Batch size",
        y="",
    )
