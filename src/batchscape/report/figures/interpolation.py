"""Loss and metric on the line through the weights of two settings."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotnine as p9

from batchscape.report.figures import style
from batchscape.report.measures import Measures

SIDES = {"train": "training", "validation": "validation"}
COLORS = {"training": "#111111", "validation": "#8C8C8C"}
LINES = {"training": "solid", "validation": "dashed"}


def draw(interpolation: pd.DataFrame, *, measures: Mapping[str, Any]) -> p9.ggplot:
    words = Measures.from_settings(measures)
    metric = words.first
    panels = {"loss": words.with_loss_unit("Loss")}
    if metric:
        panels[metric.name] = metric.title
    checkpoint = interpolation["checkpoint"].iloc[0]
    lines = pd.concat(
        [
            interpolation[["first", "second", "alpha"]].assign(
                quantity=name,
                side=side_name,
                **{statistic: interpolation[f"{side}_{quantity}_{statistic}"] for statistic in ("mean", "min", "max")},
            )
            for quantity, name in panels.items()
            for side, side_name in SIDES.items()
        ],
        ignore_index=True,
    )
    lines["pair"] = [
        f"{first} (α = 0) to {second} (α = 1)" for first, second in zip(lines["first"], lines["second"], strict=True)
    ]
    lines["quantity"] = pd.Categorical(lines["quantity"], categories=list(panels.values()), ordered=True)
    counted = interpolation[interpolation["alpha"] == interpolation["alpha"].min()]
    seeds = style.describe_seeds(counted["n_seeds"], counted["n_diverged"])
    infinite = np.isinf(lines["mean"])
    # A logarithmic metric grows like the exponential of the loss, and so may the loss itself.
    log = metric is not None and metric.scale == "log" and bool((lines["min"].dropna() > 0).all())
    plot = style.empty_plot() if lines["mean"].isna().all() else _lines(lines, infinite, log)
    policy = style.describe_batch_norm(interpolation["batch_norm"])
    marks = "; ∞: infinite loss" if infinite.any() else ""
    return plot + p9.labs(
        title=f"On the line through the {style.weights_label(checkpoint)} of two runs",
        subtitle=f"Mean and range over {seeds}; dotted: the two runs{marks}{policy}",
        x="α",
        y="",
    )


def _lines(lines: pd.DataFrame, infinite: pd.Series, log: bool) -> p9.ggplot:
    finite = lines.replace([np.inf, -np.inf], np.nan)  # nan interrupts a line
    tops = finite.groupby("quantity", observed=True)["mean"].transform("max")
    marks = lines.assign(label="∞", mean=tops)[infinite]
    return (
        p9.ggplot(finite, p9.aes("alpha", "mean", color="side", fill="side", linetype="side"))
        + p9.geom_vline(xintercept=[0, 1], linetype="dotted", color="#777777", size=0.4)
        + p9.geom_ribbon(p9.aes(ymin="min", ymax="max"), alpha=0.2, color="none")
        + p9.geom_line(size=0.8)
        + p9.geom_text(p9.aes(label="label"), marks, show_legend=False)
        + p9.facet_wrap(["pair", "quantity"], scales="free_y", ncol=2)
        + p9.scale_y_continuous(trans="log10" if log else "identity", labels=style.tick_labels)
        + p9.scale_color_manual(values=COLORS, name="Data")
        + p9.scale_fill_manual(values=COLORS, name="Data")
        + p9.scale_linetype_manual(values=LINES, name="Data")
        + style.theme()
    )
