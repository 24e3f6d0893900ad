"""Best validation loss by learning rate, one line per batch size, with the best rate of each."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import plotnine as p9

from batchscape.report.figures import style
from batchscape.report.figures.loss_axis import LossAxis
from batchscape.report.measures import Measures
from batchscape.report.numbers import format_interval, format_number
from batchscape.report.settings import constant_lr_settings, shared_learning_rates

LOSS = "best_validation_loss"


def draw(
    runs: pd.DataFrame,
    lr_grid: pd.DataFrame,
    best_lr: pd.DataFrame,
    scaling: pd.DataFrame,
    *,
    measures: Mapping[str, Any],
) -> p9.ggplot:
    """`runs` gives the points of seeds, `lr_grid` the lines, `best_lr` the markers, `scaling` the subtitle."""
    runs = constant_lr_settings(runs)
    axis = LossAxis.of(runs[LOSS])
    lines, _ = axis.keep_drawable(lr_grid, f"{LOSS}_mean")
    seeds = style.describe_seeds(lr_grid["n_seeds"], lr_grid["n_diverged"])
    return (style.empty_plot() if lines.empty else _lines(runs, lines, best_lr, axis)) + p9.labs(
        title="Best validation loss by learning rate",
        subtitle=(
            f"Small points: seeds; lines: mean over {seeds}. On the edge of the range a best rate is only a bound"
            f"{_describe_exponent(scaling)}"
        ),
        x="Learning rate",
        y=Measures.from_settings(measures).with_loss_unit("Best validation loss"),
    )


def _describe_exponent(scaling: pd.DataFrame) -> str:
    grid = scaling[scaling["source"] == "grid"].iloc[0]
    if pd.isna(grid["ci95_low"]):
        return ""
    interval = format_interval(grid["ci95_low"], grid["ci95_high"])
    return f". Best rate by batch size: power {format_number(grid['exponent'])} (95 % interval {interval})"


def _lines(runs: pd.DataFrame, lines: pd.DataFrame, best_lr: pd.DataFrame, axis: LossAxis) -> p9.ggplot:
    # Batch sizes are shifted at each learning rate, so that none hides another.
    sizes = sorted(runs["batch_size"].unique())
    shift = {size: 1.03 ** (index - (len(sizes) - 1) / 2) for index, size in enumerate(sizes)}
    seeds, not_drawn = axis.keep_drawable(runs[runs["status"] != "diverged"], LOSS)
    best, _ = axis.keep_drawable(best_lr, f"{LOSS}_mean")
    best = best.rename(columns={"best_learning_rate": "learning_rate"})
    best = best.assign(position=best["edge"].eq("none").map({True: "inside the range", False: "on the edge"}))
    seeds, lines, best = (
        frame.assign(
            x=frame["learning_rate"] * frame["batch_size"].map(shift),
            batch_size=style.as_batch_size_categories(frame["batch_size"]),
        )
        for frame in (seeds, lines, best)
    )
    return (
        p9.ggplot(lines, p9.aes("x", f"{LOSS}_mean", color="batch_size"))
        + p9.geom_point(p9.aes(y=LOSS), seeds, alpha=0.4, size=1.4, show_legend=False)
        + p9.geom_line(data=lines[lines.groupby("batch_size", observed=True)["x"].transform("size") > 1], size=0.7)
        + p9.geom_point(
            p9.aes(shape="position"), best, size=4, fill="white", stroke=1, show_legend={"color": False, "shape": True}
        )
        + p9.scale_x_log10(breaks=shared_learning_rates(lines), minor_breaks=[], labels=style.tick_labels)
        + axis.y_scale()
        + p9.scale_shape_manual(values={"inside the range": "*", "on the edge": "D"}, name="Best learning rate")
        + style.captions(not_drawn)
        + style.batch_size_scales(runs["batch_size"])
        + style.theme()
        + p9.theme(legend_position="right")
    )
