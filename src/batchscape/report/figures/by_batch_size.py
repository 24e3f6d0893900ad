"""Quantities against the batch size, one panel each: seeds, and beside them mean and standard deviation."""

from typing import Literal

import pandas as pd
import plotnine as p9

from batchscape.report.figures import limits, style


def plot_by_batch_size(
    seeds: pd.DataFrame, summary: pd.DataFrame, scales: Literal["fixed", "free_y"] = "fixed", columns: int | None = None
) -> p9.ggplot:
    """Return the plot without its labels; batch sizes without values are left empty.

    Args:
        seeds: One row per run, with the columns panel, batch_size and value.
        summary: One row per panel and batch size, with the columns panel, batch_size, mean and sd. Panels are drawn in
            its order.
        scales: `fixed` if all panels show the same quantity, else `free_y`.
        columns: Number of panels per row.
    """
    sizes = style.batch_size_labels(summary["batch_size"].astype(int))
    colors = style.batch_size_scales(summary["batch_size"])
    seeds, not_drawn = style.keep_drawable(seeds, "value")
    if seeds.empty:
        return style.empty_plot()
    panels = [panel for panel in dict.fromkeys(summary["panel"]) if panel in set(seeds["panel"])]
    summary, _ = style.keep_drawable(summary, "mean")
    seeds, summary = (
        frame.assign(
            panel=pd.Categorical(frame["panel"], categories=panels, ordered=True),
            batch_size=style.as_batch_size_categories(frame["batch_size"]),
        )
        for frame in (seeds, summary)
    )
    shown = limits.panel_limits(seeds, ["batch_size"], shared=scales == "fixed")
    bars = limits.error_bars(summary, shown, seeds)
    summary = limits.at_edges(bars, shown, "mean")
    return (
        p9.ggplot(summary, p9.aes("batch_size", "mean", color="batch_size"))
        + p9.geom_point(
            p9.aes(y="value"), limits.within(seeds, shown), alpha=0.5, size=1.6,
            position=p9.position_nudge(x=-0.15), show_legend=False,
        )
        + limits.draw_arrows(p9.aes("batch_size", "value", color="batch_size"), seeds, shown, nudge=-0.15)
        + p9.geom_pointrange(
            p9.aes(ymin="low", ymax="high"), size=0.6, fatten=3, position=p9.position_nudge(x=0.1), show_legend=False
        )
        + p9.facet_wrap("panel", scales=scales, ncol=columns)
        + p9.scale_x_discrete(limits=sizes)
        + p9.scale_y_continuous(breaks=limits.choose_breaks(seeds, shown, bars), labels=style.tick_labels)
        + style.captions(not_drawn, limits.describe_beyond(seeds, shown))
        + colors
        + style.theme()
    )  # fmt: skip
