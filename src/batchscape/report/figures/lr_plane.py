"""Best validation loss by batch size and learning rate, with the best rates and two scaling rules."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotnine as p9

from batchscape.report.figures import style
from batchscape.report.figures.loss_axis import LossAxis
from batchscape.report.measures import Measures
from batchscape.report.settings import shared_learning_rates

LOSS = "best_validation_loss"
NOT_A_NUMBER = "#D9D9D9"


def draw(
    lr_grid: pd.DataFrame, best_lr: pd.DataFrame, *, small_batch_size: int, measures: Mapping[str, Any]
) -> p9.ggplot:
    """`lr_grid` gives the cells, `best_lr` the outlines and the start of the lines."""
    seeds = style.describe_seeds(lr_grid["n_seeds"], [])  # the cells show how many diverged
    if lr_grid[f"{LOSS}_mean"].isna().all():
        plot = style.empty_plot()
    else:
        plot = _plane(lr_grid, best_lr, small_batch_size, Measures.from_settings(measures).with_loss_unit("Loss"))
    return plot + p9.labs(
        title="Best validation loss by batch size and learning rate",
        subtitle=(
            f"Mean over {seeds}; n×: n diverged runs; gray: all runs diverged. Outlined: best rate "
            f"of each batch size. Lines scale the best rate of batch size {small_batch_size}"
        ),
        x="Batch size",
        y="Learning rate",
    )


def _plane(lr_grid: pd.DataFrame, best_lr: pd.DataFrame, small_batch_size: int, title: str) -> p9.ggplot:
    cells = _cells(lr_grid)
    axis = LossAxis.of(cells[f"{LOSS}_mean"])
    losses = axis.transform(cells[f"{LOSS}_mean"])
    low, high = np.nanmin(losses), np.nanmax(losses)
    # The map is dark where the loss is low.
    cells["ink"] = np.where((losses - low) / max(high - low, 1e-9) < 0.6, "white", "black")
    digits = style.digits_to_distinguish(cells[f"{LOSS}_mean"])
    cells["text"] = ["" if np.isnan(loss) else f"{loss:#.{digits}g}" for loss in cells[f"{LOSS}_mean"]] + cells[
        "n_diverged"
    ].map(lambda count: f" {count}×" if count else "")
    best = best_lr.dropna(subset=["best_learning_rate"]).rename(columns={"best_learning_rate": "learning_rate"})
    sizes = sorted(cells["batch_size"].unique())
    start = best.loc[best["batch_size"] == small_batch_size, "learning_rate"]
    x = np.geomspace(sizes[0], sizes[-1], 50)
    lines = pd.concat(
        [
            pd.DataFrame({"batch_size": x, "learning_rate": rate * (x / small_batch_size) ** power, "scaling": name})
            for rate in start
            for name, power in (("linear", 1.0), ("sqrt", 0.5))
        ]
        or [pd.DataFrame({"batch_size": [], "learning_rate": [], "scaling": []})]
    )
    bottom, top = cells["bottom"].min(), cells["top"].max()
    lines = lines[lines["learning_rate"].between(bottom, top)]
    rates = shared_learning_rates(cells) or sorted(cells["learning_rate"].unique())
    return (
        p9.ggplot(cells, p9.aes("batch_size", "learning_rate"))
        + p9.geom_rect(
            p9.aes(xmin="left", xmax="right", ymin="bottom", ymax="top", fill=f"{LOSS}_mean"), color="white", size=0.4
        )
        + p9.geom_rect(
            p9.aes(xmin="left", xmax="right", ymin="bottom", ymax="top"),
            cells.merge(best[["batch_size", "learning_rate"]]), color=style.CHOSEN, fill="none", size=1.2,
        )
        + p9.geom_line(p9.aes(linetype="scaling"), lines, color=style.CHOSEN, size=0.9)
        + p9.geom_text(p9.aes(label="text", color="ink"), va="top")  # below the start of the lines
        + p9.scale_color_identity()
        + p9.scale_linetype_manual(values={"linear": "dashed", "sqrt": "dotted"}, name="Scaling")
        + p9.scale_fill_cmap(style.COLOR_MAP, na_value=NOT_A_NUMBER, name=title, **axis.options)
        + p9.scale_x_continuous(
            trans="log2", breaks=sizes, labels=[str(size) for size in sizes], minor_breaks=[], expand=(0.01, 0)
        )
        + p9.scale_y_log10(breaks=rates, labels=style.tick_labels, minor_breaks=[], expand=(0.01, 0))
        + style.theme()
        + p9.theme(aspect_ratio=0.7, panel_grid=p9.element_blank(), legend_position="right")
    )  # fmt: skip


def _cells(lr_grid: pd.DataFrame) -> pd.DataFrame:
    """Return the rectangle of each setting: the points nearest to its batch size and then to its learning rate."""
    sizes = np.array(sorted(lr_grid["batch_size"].unique()), dtype=float)
    edges = _edges(sizes)
    cells = lr_grid.sort_values(["batch_size", "learning_rate"], ignore_index=True)
    index = np.searchsorted(sizes, cells["batch_size"])
    cells = cells.assign(left=edges[index], right=edges[index + 1], bottom=0.0, top=0.0)
    for _, column in cells.groupby("batch_size"):
        edges = _edges(column["learning_rate"].to_numpy())
        cells.loc[column.index, "bottom"], cells.loc[column.index, "top"] = edges[:-1], edges[1:]
    return cells


def _edges(values: np.ndarray) -> np.ndarray:
    """Return the boundaries (n + 1,) of ascending values (n,): geometric means, and half the widest gap at the ends."""
    logs = np.log(values)
    between = (logs[:-1] + logs[1:]) / 2
    beyond = np.diff(logs).max(initial=0) / 2 or np.log(2) / 2
    return np.exp(np.concatenate([[logs[0] - beyond], between, [logs[-1] + beyond]]))
