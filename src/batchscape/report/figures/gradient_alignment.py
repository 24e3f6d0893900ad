"""Alignment of the gradients of examples: the norm of the mean gradient of B examples, and its upper bound."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import plotnine as p9

from batchscape.report.figures import style
from batchscape.report.measures import Measures, add_unit


def draw(table: pd.DataFrame, *, measures: Mapping[str, Any]) -> p9.ggplot:
    chosen, not_drawn = style.keep_drawable(table[table["n_seeds"] > 0], "gradient_norm_mean", log=True)
    panels = [_panel(name) for name in style.sort_checkpoints(table["checkpoint"])]
    counted = table[(table["gradient_batch"] == 1) & (table["checkpoint"] == table["checkpoint"].iloc[0])]
    seeds = style.describe_seeds(counted["n_seeds"], counted["n_diverged"])
    plot = style.empty_plot() if chosen.empty else _lines(chosen, panels, table["batch_size"])
    return (
        plot
        + style.captions(not_drawn)
        + p9.labs(
            title="Norm of the mean gradient of B examples",
            subtitle=(
                f"Mean and range over {seeds}, one color per training batch size; dashed: mean of the B norms, "
                "the upper bound by the triangle inequality. All batch sizes share their initial weights"
            ),
            x="B, examples in the gradient",
            y=add_unit("Mean gradient norm", Measures.from_settings(measures).per_weight()),
        )
    )


def _panel(checkpoint: str) -> str:
    return f"At the {style.weights_label(checkpoint)}"


def _lines(rows: pd.DataFrame, panels: list[str], batch_sizes: pd.Series) -> p9.ggplot:
    rows = rows.assign(
        panel=pd.Categorical(rows["checkpoint"].map(_panel), categories=panels, ordered=True),
        batch_size=style.as_batch_size_categories(rows["batch_size"]),
    )
    # A logarithmic axis has no 0: clip the range at the smallest mean.
    rows["gradient_norm_min"] = rows["gradient_norm_min"].where(
        rows["gradient_norm_min"] > 0, rows["gradient_norm_mean"].min()
    )
    breaks = sorted(rows["gradient_batch"].unique())[::2]
    return (
        p9.ggplot(rows, p9.aes("gradient_batch", "gradient_norm_mean", color="batch_size", fill="batch_size"))
        + p9.geom_ribbon(p9.aes(ymin="gradient_norm_min", ymax="gradient_norm_max"), alpha=0.15, color="none")
        + p9.geom_line(p9.aes(y="bound_mean"), linetype="dashed", size=0.5, show_legend=False)
        + p9.geom_line(size=0.7)
        + p9.geom_point(size=1.4, show_legend=False)
        + p9.facet_wrap("panel")
        + p9.scale_x_log10(breaks=breaks, minor_breaks=[], labels=style.tick_labels)
        + p9.scale_y_log10(labels=style.tick_labels)
        + style.batch_size_scales(batch_sizes)
        + style.theme()
    )
