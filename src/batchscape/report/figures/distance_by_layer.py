"""Distance of the minimiser from the initial weights, layer by layer, at the fixed learning rate."""

import pandas as pd
import plotnine as p9

from batchscape.analysis.distance import WHOLE
from batchscape.report.figures import style
from batchscape.report.figures.by_batch_size import by_batch_size


def draw(distance: pd.DataFrame, table: pd.DataFrame, *, fixed_lr: float) -> p9.ggplot:
    """`distance` gives the points and the order of the layers, `table` their means and spreads."""
    order = [layer for layer in dict.fromkeys(distance["layer"]) if layer != WHOLE]
    at_rate = distance[(distance["learning_rate"] == fixed_lr) & (distance["status"] != "diverged")]
    seeds = at_rate[at_rate["layer"] != WHOLE].rename(columns={"layer": "panel", "distance": "value"})
    rows = table[(table["learning_rate"] == fixed_lr) & (table["layer"] != WHOLE)]
    rows = rows.sort_values("layer", key=lambda layers: layers.map(order.index), kind="stable")
    summary = rows.rename(columns={"layer": "panel", "distance_mean": "mean", "distance_sd": "sd"})
    return by_batch_size(seeds, summary) + p9.labs(
        title=f"Distance from the initial weights by layer, {style.rate_name(fixed_lr)}",
        subtitle=style.spread_name(rows[rows["layer"] == order[0]]),
        x="Batch size",
        y=style.DISTANCE_NAME,
    )
