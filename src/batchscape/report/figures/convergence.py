"""Lowest losses, time per epoch, and epochs and time to the best epoch, by batch size at the fixed learning rate."""

import pandas as pd
import plotnine as p9

from batchscape.report.figures import style
from batchscape.report.figures.by_batch_size import plot_by_batch_size
from batchscape.report.settings import at_learning_rate

# CPU time, because jobs that share the cores of the machine increase each other's wall time.
PANELS = {
    "min_train_loss": "Lowest training loss (nats)",
    "best_validation_loss": "Best validation loss (nats)",
    "validation_accuracy_at_best": "Accuracy at best epoch",
    "best_epoch": "Best epoch",
    "epoch_cpu_seconds": "Time per epoch (CPU s)",
    "cpu_seconds_to_best": "To best epoch (CPU s)",
}


def draw(runs: pd.DataFrame, table: pd.DataFrame, *, fixed_learning_rate: float) -> p9.ggplot:
    """`runs` gives the points of seeds, `table` means and standard deviations."""
    rows = at_learning_rate(runs[runs["status"] != "diverged"], fixed_learning_rate)
    seeds = pd.concat([rows[["batch_size"]].assign(panel=name, value=rows[column]) for column, name in PANELS.items()])
    summary = pd.concat(
        [
            table[["batch_size"]].assign(panel=name, mean=table[f"{column}_mean"], sd=table[f"{column}_sd"])
            for column, name in PANELS.items()
        ]
    )
    return plot_by_batch_size(seeds, summary, scales="free_y") + p9.labs(
        title=f"Where training ends and what it costs, {style.learning_rate_label(fixed_learning_rate)}",
        subtitle=style.describe_spread(table) + "\nBest epoch: the epoch with the lowest validation loss",
        x="Batch size",
        y="",
    )
