"""Distance of the best weights from the initial weights by batch size, at each learning rate that all sizes share."""

import pandas as pd
import plotnine as p9

from batchscape.analysis.distance import ALL_LAYERS
from batchscape.report.figures import style
from batchscape.report.figures.by_batch_size import plot_by_batch_size
from batchscape.report.settings import constant_lr_settings, shared_learning_rates


def draw(distance: pd.DataFrame, table: pd.DataFrame) -> p9.ggplot:
    """`distance` gives the points of seeds, `table` means and standard deviations."""
    runs, rows = (
        constant_lr_settings(
            frame[(frame["layer"] == ALL_LAYERS) & frame["learning_rate"].isin(shared_learning_rates(table))]
        )
        for frame in (distance, table)
    )
    runs = runs[runs["status"] != "diverged"]
    rows = rows.sort_values("learning_rate", kind="stable")
    seeds = runs.assign(panel=runs["learning_rate"].map(style.learning_rate_label), value=runs["distance"])
    summary = rows.assign(
        panel=rows["learning_rate"].map(style.learning_rate_label), mean=rows["distance_mean"], sd=rows["distance_sd"]
    )
    return plot_by_batch_size(seeds, summary) + p9.labs(
        title="Distance of the best weights from the initial weights",
        subtitle=style.describe_spread(rows),
        x="Batch size",
        y=style.DISTANCE_LABEL,
    )
