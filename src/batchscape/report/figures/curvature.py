"""Curvature times learning rate by epoch, one line per run, beside the edge of stability."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotnine as p9

from batchscape.report.figures import style

# The column of each panel, its title, and the column of its edge.
PANELS = (
    ("eigenvalue_times_rate", "Top eigenvalue · η", "edge"),
    ("batch_sharpness_times_rate", "Batch sharpness · η", "edge"),
    ("preconditioned_times_rate", "Preconditioned eigenvalue · η", "preconditioned_edge"),
)


def draw(curvature: pd.DataFrame, table: pd.DataFrame, *, batch_sizes: Sequence[int]) -> p9.ggplot:
    """`curvature` gives the lines, `table` the number of seeds, `batch_sizes` those of the study,
    which determine the colors. A panel without a value is left out."""
    found = curvature[curvature["status"] != "diverged"]
    parts = [
        found.assign(panel=title, value=found[column], limit=found[edge])
        for column, title, edge in PANELS
        if found[column].notna().any()
    ]
    # An epoch of 0 has no place on the axis. Best and last weights may be those after another checkpoint.
    rows = pd.concat(parts) if parts else found.assign(panel="", value=np.nan, limit=np.nan)
    rows = rows[rows["epoch"] > 0].drop_duplicates(["panel", "run", "epoch"])
    rows, not_drawn = style.keep_drawable(rows, "value", log=True)
    seeds = style.describe_seeds(table["n_seeds"], table[table["checkpoint"] == "init"]["n_diverged"])
    return (
        (_lines(rows, batch_sizes) if len(rows) else style.empty_plot())
        + style.captions(not_drawn)
        + p9.labs(
            title="Curvature during training, times the learning rate η",
            subtitle=(
                f"One line per run, {seeds}, from the first checkpoint on; dashed: the edge beyond which full-batch "
                "steps are unstable"
            )
            + style.describe_not_computed(curvature),
            x="Epoch",
            y="",
        )
    )


def _lines(rows: pd.DataFrame, batch_sizes: Sequence[int]) -> p9.ggplot:
    titles = [title for _, title, _ in PANELS if title in set(rows["panel"])]
    rows = rows.assign(panel=pd.Categorical(rows["panel"], categories=titles, ordered=True))
    rows = rows.assign(batch_size=style.as_batch_size_categories(rows["batch_size"])).sort_values("epoch")
    # Learning rate and weight decay change the edge a little.
    edges = rows.dropna(subset=["limit"]).assign(limit=lambda each: each["limit"].round(2))
    edges = edges.drop_duplicates(["panel", "limit"])
    plot = (
        p9.ggplot(rows, p9.aes("epoch", "value", color="batch_size", group="run"))
        + p9.geom_line(size=0.6)
        + p9.geom_point(size=1.4)
        + p9.facet_wrap("panel")
        + p9.scale_x_log10(labels=style.tick_labels)
        + p9.scale_y_log10(labels=style.tick_labels)
        + style.batch_size_scales(pd.Series(batch_sizes))
        + style.theme()
    )
    if len(edges):
        plot += p9.geom_hline(p9.aes(yintercept="limit"), edges, linetype="dashed", size=0.4)
    return plot
