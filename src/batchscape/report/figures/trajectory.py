"""The way of a training on the plane of its two leading principal components, over the training loss."""

import numpy as np
import pandas as pd
import plotnine as p9

from batchscape.report.figures import style
from batchscape.report.figures.loss_map import describe_non_finite, plot_loss_map


def draw(trajectory: pd.DataFrame) -> p9.ggplot:
    many = trajectory["seed"].nunique() > 1
    panels = [
        style.run_panel_title(
            row.batch_size, row.learning_rate, row.setting, row.status, f"seed {row.seed}" if many else "",
            f"{row.explained_variance_x:.0%} and {row.explained_variance_y:.0%} of the variance",
        )
        for row in trajectory.itertuples()
    ]  # fmt: skip
    shown = trajectory.assign(panel=panels).dropna(subset=["x"])
    cells, way = shown[shown["epoch"].isna()], shown[shown["epoch"].notna()]
    plot = plot_loss_map(cells, columns=2)
    if np.isfinite(cells["loss"]).any():
        way = way.assign(panel=pd.Categorical(way["panel"], categories=list(dict.fromkeys(way["panel"])), ordered=True))
        # Above its dot, by a share of the plane's height.
        height = np.ptp(cells["y"])
        ends = way[way["checkpoint"].isin(["init", "best"])].assign(above=lambda rows: rows["y"] + 0.03 * height)
        plot = (
            plot
            + p9.geom_path(data=way, color="#FF7F0E", size=0.7)
            + p9.geom_point(data=way, color="#FF7F0E", fill="white", size=1.6)
            + p9.geom_label(p9.aes(y="above", label="checkpoint"), ends, size=7, label_padding=0.15, va="bottom")
        )
    return plot + p9.labs(
        title="A training on the plane of its principal components",
        subtitle=style.wrap(
            f"Dots: init, snapshots, best and last; the same colours and levels{describe_non_finite(cells['loss'])}"
            f"{_not_shown_name(trajectory)}{style.describe_batch_norm(trajectory['batch_norm'])}"
        ),
        x="First component (unit of weight)",
        y="Second component (unit of weight)",
    )


def _not_shown_name(trajectory: pd.DataFrame) -> str:
    """Name the runs that have no plane; empty if all have one."""
    runs = trajectory.loc[trajectory["x"].isna(), "run"]
    return f"; not shown, for fewer than three different weights: {', '.join(runs)}" if len(runs) else ""
