"""Distance of the best weights from the initial weights, layer by layer, at the fixed learning rate."""

import pandas as pd
import plotnine as p9

from batchscape.analysis.distance import ALL_LAYERS
from batchscape.report.figures import style
from batchscape.report.figures.by_batch_size import plot_by_batch_size
from batchscape.report.settings import at_learning_rate


def draw(distance: pd.DataFrame, table: pd.DataFrame, *, fixed_learning_rate: float) -> p9.ggplot:
    """`distance` gives the points of seeds and the order of layers, `table` means and standard deviations."""
    order = [layer for layer in dict.fromkeys(distance["layer"]) if layer != ALL_LAYERS]
    runs = at_learning_rate(distance[distance["status"] != "diverged"], fixed_learning_rate)
    seeds = runs[runs["layer"] != ALL_LAYERS].rename(columns={"layer": "panel", "distance": "value"})
    rows = at_learning_rate(table[table["layer"] != ALL_LAYERS], fixed_learning_rate)
    rows = rows.sort_values("layer", key=lambda layers: layers.map(order.index), kind="stable")
    summary = rows.rename(columns={"layer": "panel", "distance_mean": "mean", "distance_sd": "sd"})
    columns = 2 if len(order) in (2, 4) else 3
    return plot_by_batch_size(seeds, summary, columns=columns) + p9.labs(
        title=f"Distance by layer, {style.learning_rate_label(fixed_learning_rate)}",
        subtitle=style.describe_spread(rows[rows["layer"] == order[0]]),
        x="Batch size",
        y=style.DISTANCE_LABEL,
    )
