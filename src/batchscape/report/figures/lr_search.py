"""All trials of the learning rate search, and the tuned rates against linear and square-root scaling."""

import numpy as np
import pandas as pd
import plotnine as p9

from batchscape.report.figures import style

# Losses above this multiple of the lowest loss of their batch size have the same color.
MAX_RELATIVE_LOSS = 4.0


def draw(trials: pd.DataFrame, tuned_lr: pd.DataFrame) -> p9.ggplot:
    diverged = ~np.isfinite(trials["validation_loss"])
    lowest = trials["batch_size"].map(trials.groupby("batch_size")["validation_loss"].min())
    shown = trials.assign(relative_loss=trials["validation_loss"] / lowest)[~diverged]
    shown["relative_loss"] = shown["relative_loss"].clip(upper=MAX_RELATIVE_LOSS)
    lines = tuned_lr.melt(
        ["batch_size"], ["linear_learning_rate", "sqrt_learning_rate"], "scaling", "learning_rate"
    ).assign(scaling=lambda frame: frame["scaling"].str.removesuffix("_learning_rate"))
    tuned = tuned_lr[np.isfinite(tuned_lr["validation_loss"])]  # infinite if every trial diverged
    sizes = sorted(trials["batch_size"].unique())
    plot = (
        p9.ggplot(lines, p9.aes("batch_size", "learning_rate"))
        + p9.geom_line(p9.aes(linetype="scaling"), lines.dropna(subset=["learning_rate"]), color="#666666")
        + p9.geom_point(p9.aes(fill="relative_loss"), shown, shape="o", size=3.2, stroke=0.2, color="#333333")
        + p9.geom_point(p9.aes(shape="edge"), _mark_edges(tuned), size=6, stroke=0.9, color="#D55E00", fill="none")
        + p9.scale_x_continuous(trans="log2", breaks=sizes, labels=[str(size) for size in sizes], minor_breaks=[])
        + p9.scale_y_log10(labels=style.tick_labels)
        + p9.scale_fill_cmap(
            "viridis_r", trans="log2", name="Validation loss",
            limits=(1, MAX_RELATIVE_LOSS), breaks=[1, 2, MAX_RELATIVE_LOSS],
            labels=["lowest", "2 ×", f"≥ {MAX_RELATIVE_LOSS:g} ×"],
        )
        + p9.scale_linetype_manual(values={"linear": "dashed", "sqrt": "dotted"}, name="Scaling")
        + p9.scale_shape_manual(values={"inside the range": "o", "on the edge": "D"}, name="Tuned rate")
        + style.theme()
        + p9.theme(legend_position="right")
    )  # fmt: skip
    if diverged.any():
        plot += p9.geom_point(data=trials[diverged], shape="x", size=2.5, color="#333333")
    crosses = "; ×: diverged trial" if diverged.any() else ""
    return plot + p9.labs(
        title="Learning rates tried for each batch size",
        subtitle=style.wrap(f"Lines scale the tuned rate of the small batch{crosses}"),
        x="Batch size",
        y="Learning rate",
    )


def _mark_edges(tuned_lr: pd.DataFrame) -> pd.DataFrame:
    inside = tuned_lr["edge"].eq("none").map({True: "inside the range", False: "on the edge"})
    return tuned_lr.rename(columns={"tuned_learning_rate": "learning_rate"}).assign(edge=inside)
