"""Training trajectory on the plane of its two principal components, over the training loss."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotnine as p9

from batchscape.report.figures import style
from batchscape.report.figures.loss_map import describe_non_finite, plot_loss_map
from batchscape.report.measures import Measures


def draw(trajectory: pd.DataFrame, *, measures: Mapping[str, Any]) -> p9.ggplot:
    many = trajectory["seed"].nunique() > 1
    panels = [
        style.run_panel_title(
            row.batch_size, row.learning_rate, row.setting, row.status, f"seed {row.seed}" if many else "",
            f"{row.explained_variance_x:.0%} and {row.explained_variance_y:.0%} of the variance",
        )
        for row in trajectory.itertuples()
    ]  # fmt: skip
    shown = trajectory.assign(panel=panels).dropna(subset=["x"])
    cells, path = shown[shown["epoch"].isna()], shown[shown["epoch"].notna()]
    plot = plot_loss_map(cells, 2, Measures.from_settings(measures))
    if np.isfinite(cells["loss"]).any():
        panel_order = list(dict.fromkeys(path["panel"]))
        path = path.assign(panel=pd.Categorical(path["panel"], categories=panel_order, ordered=True))
        # Labels are above their dots, by a fraction of the height of their plane.
        heights = cells.groupby("panel")["y"].agg(np.ptp)
        ends = path[path["checkpoint"].isin(["init", "best"])]
        ends = ends.assign(above=ends["y"] + 0.03 * ends["panel"].astype(str).map(heights))
        plot = (
            plot
            + p9.geom_path(data=path, color=style.CHOSEN, size=0.7)
            + p9.geom_point(data=path, color=style.CHOSEN, fill="white", size=1.6)
            + p9.geom_label(p9.aes(y="above", label="checkpoint"), ends, label_padding=0.15, va="bottom")
        )
    return plot + p9.labs(
        title="Training trajectory on the plane of its principal components",
        subtitle=(
            f"Dots: checkpoints from init to last; all panels share colors and levels"
            f"{describe_non_finite(cells['loss'])}{_describe_runs_not_shown(trajectory)}"
            f"{style.describe_batch_norm(trajectory['batch_norm'])}"
        ),
        x="First component (unit of weight)",
        y="Second component (unit of weight)",
    )


def _describe_runs_not_shown(trajectory: pd.DataFrame) -> str:
    """Return the runs without a plane; empty if all have one."""
    runs = trajectory.loc[trajectory["x"].isna(), "run"]
    return f"; not shown (fewer than three distinct checkpoints): {', '.join(runs)}" if len(runs) else ""
