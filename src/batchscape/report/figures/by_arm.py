"""Quantities against the batch size, one panel each, arms side by side: seeds, mean and standard deviation."""

from collections.abc import Mapping

import pandas as pd
import plotnine as p9

from batchscape.report.figures import limits, style


def plot_by_arm(
    arm_runs: pd.DataFrame, scaled_lr: pd.DataFrame, panels: Mapping[str, str], if_empty: str = style.NOTHING_TO_DRAW
) -> p9.ggplot:
    """Return the plot without its labels.

    Args:
        arm_runs: The table of that name, for the points of seeds.
        scaled_lr: The table of that name, for means and standard deviations; arms are drawn in its order.
        panels: Titles of the panels by quantity.
        if_empty: What the plot says if there is no value to draw.
    """
    scales = style.arm_scales(scaled_lr["arm"])
    arms, sizes = style.unique_arms(scaled_lr["arm"]), style.batch_size_labels(scaled_lr["batch_size"])
    rows, _ = style.keep_drawable(scaled_lr[scaled_lr["quantity"].isin(panels)], "value_mean")
    if rows.empty:
        return style.empty_plot(if_empty)
    seeds, not_drawn = style.keep_drawable(
        arm_runs[arm_runs["quantity"].isin(panels) & (arm_runs["status"] != "diverged")], "value"
    )
    names = list(panels.values())
    seeds, rows = (
        frame.assign(
            panel=pd.Categorical(frame["quantity"].map(panels), categories=names, ordered=True),
            arm=pd.Categorical(frame["arm"], categories=arms, ordered=True),
            # Arms are placed side by side around the position of their batch size.
            x=[
                1 + sizes.index(str(size)) + 0.7 * ((arms.index(arm) + 0.5) / len(arms) - 0.5)
                for size, arm in zip(frame["batch_size"], frame["arm"], strict=True)
            ],
        )
        for frame in (seeds, rows)
    )
    shown = limits.panel_limits(seeds, ["arm", "batch_size"])
    rows = limits.error_bars(rows.rename(columns={"value_mean": "mean", "value_sd": "sd"}), shown, seeds)
    means = limits.at_edges(rows, shown, "mean")
    lines = means[means.groupby(["panel", "arm"], observed=True)["x"].transform("size") > 1]
    return (
        p9.ggplot(means, p9.aes("x", "mean", color="arm", shape="arm"))
        + p9.geom_line(data=lines, size=0.4, alpha=0.6, show_legend=False)
        + p9.geom_point(p9.aes(y="value"), limits.within(seeds, shown), alpha=0.35, size=1.2, show_legend=False)
        + p9.geom_linerange(p9.aes(ymin="low", ymax="high"), size=0.7, show_legend=False)
        + p9.geom_point(size=2.4)
        + limits.draw_arrows(p9.aes("x", "value", color="arm"), seeds, shown)
        + p9.facet_wrap("panel", scales="free_y")
        + p9.scale_x_continuous(
            breaks=list(range(1, len(sizes) + 1)), labels=sizes, minor_breaks=[], limits=(0.6, len(sizes) + 0.4)
        )
        + p9.scale_y_continuous(breaks=limits.choose_breaks(seeds, shown, rows), labels=style.tick_labels)
        + scales
        + style.captions(not_drawn, limits.describe_beyond(seeds, shown))
        + style.theme()
    )


def subtitle(scaled_lr: pd.DataFrame, panels: Mapping[str, str]) -> str:
    """Return what points and bars show; each setting is counted once."""
    settings = scaled_lr[scaled_lr["quantity"] == next(iter(panels))].drop_duplicates("setting")
    return style.describe_spread(settings)
