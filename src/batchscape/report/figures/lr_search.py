"""All trials of the learning rate search, and the tuned rates against linear and square-root scaling."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotnine as p9

from batchscape.report.figures import style
from batchscape.report.measures import Measures

# Losses above this multiple of the lowest loss of their batch size have the same color.
MAX_RELATIVE_LOSS = 4.0


def draw(trials: pd.DataFrame, tuned_lr: pd.DataFrame, *, measures: Mapping[str, Any]) -> p9.ggplot:
    trials = trials[trials["stage"] != "finalist"]  # which train longer, so that their losses are lower
    diverged = ~np.isfinite(trials["validation_loss"])
    finite = trials[~diverged]
    lowest = finite["batch_size"].map(finite.groupby("batch_size")["validation_loss"].min())
    if (finite["validation_loss"] > 0).all():
        colors, upper = _relative_colors(), MAX_RELATIVE_LOSS
        shown = finite.assign(color=finite["validation_loss"] / lowest)
    else:  # without a natural zero, losses have no ratio
        shown = finite.assign(color=finite["validation_loss"] - lowest)
        upper = style.round_up(shown["color"].median())
        colors = _difference_colors(upper, Measures.from_settings(measures).with_loss_unit("Above lowest loss"))
    shown["color"] = shown["color"].clip(upper=upper)
    lines = tuned_lr.melt(
        ["batch_size"], ["linear_learning_rate", "sqrt_learning_rate"], "scaling", "learning_rate"
    ).assign(scaling=lambda frame: frame["scaling"].str.removesuffix("_learning_rate"))
    tuned = tuned_lr[np.isfinite(tuned_lr["validation_loss"])]  # infinite if every trial diverged
    sizes = sorted(trials["batch_size"].unique())
    plot = (
        p9.ggplot(lines, p9.aes("batch_size", "learning_rate"))
        + p9.geom_line(p9.aes(linetype="scaling"), lines.dropna(subset=["learning_rate"]), color="#666666")
        + p9.geom_point(p9.aes(fill="color"), shown, shape="o", size=3.2, stroke=0.2, color="#333333")
        + p9.geom_point(p9.aes(shape="edge"), _mark_edges(tuned), size=6, stroke=0.9, color=style.CHOSEN, fill="none")
        + p9.scale_x_continuous(trans="log2", breaks=sizes, labels=[str(size) for size in sizes], minor_breaks=[])
        + p9.scale_y_log10(labels=style.tick_labels)
        + colors
        + p9.scale_linetype_manual(values={"linear": "dashed", "sqrt": "dotted"}, name="Scaling")
        + p9.scale_shape_manual(values={"inside the range": "o", "on the edge": "D"}, name="Tuned rate")
        + style.theme()
        + p9.theme(legend_position="right")
    )
    if diverged.any():
        plot += p9.geom_point(data=trials[diverged], shape="x", size=2.5, color="#333333")
    crosses = "; ×: diverged trial" if diverged.any() else ""
    return plot + p9.labs(
        title="Learning rates tried for each batch size",
        subtitle=f"Lines scale the tuned rate of the small batch{crosses}",
        x="Batch size",
        y="Learning rate",
    )


def _relative_colors() -> p9.scale_fill_cmap:
    breaks, labels = [1, 2, MAX_RELATIVE_LOSS], ["lowest", "2 ×", f"≥ {MAX_RELATIVE_LOSS:g} ×"]
    limits, name = (1, MAX_RELATIVE_LOSS), "Validation loss"
    return p9.scale_fill_cmap(style.COLOR_MAP, trans="log2", name=name, limits=limits, breaks=breaks, labels=labels)


def _difference_colors(upper: float, name: str) -> p9.scale_fill_cmap:
    labels = ["lowest", f"+{style.format_tick(upper / 2)}", f"≥ +{style.format_tick(upper)}"]
    return p9.scale_fill_cmap(
        style.COLOR_MAP, name=name, limits=(0, upper), breaks=[0, upper / 2, upper], labels=labels
    )


def _mark_edges(tuned_lr: pd.DataFrame) -> pd.DataFrame:
    inside = tuned_lr["edge"].eq("none").map({True: "inside the range", False: "on the edge"})
    return tuned_lr.rename(columns={"tuned_learning_rate": "learning_rate"}).assign(edge=inside)
