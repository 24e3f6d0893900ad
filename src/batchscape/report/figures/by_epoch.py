"""Quantities by epoch, one panel each and one line per batch size: mean and range over seeds."""

from typing import Literal

import pandas as pd
import plotnine as p9

from batchscape.report.figures import style
from batchscape.report.figures.loss_axis import LOGARITHMIC, LossAxis


def plot_by_epoch(
    data: pd.DataFrame,
    batch_sizes: pd.Series,
    scales: Literal["fixed", "free_y"] = "fixed",
    columns: int | None = None,
    axis: LossAxis = LOGARITHMIC,
) -> p9.ggplot:
    """Return the plot without its labels; the axis of epochs is logarithmic.

    Args:
        data: One row per epoch, with the columns panel, batch_size, epoch, mean, min and max. Panels are drawn in its
            order.
        batch_sizes: All batch sizes of the study, which determine the colors.
        scales: `fixed` if all panels show the same quantity, else `free_y`.
        columns: Number of panels per row.
        axis: The other axis.
    """
    data, not_drawn = axis.keep_drawable(data, "mean")
    if data.empty:
        return style.empty_plot()
    panels = list(dict.fromkeys(data["panel"]))
    data = style.thin_epochs(data, ["panel", "batch_size"])
    if not axis.signed:
        # A logarithmic axis has no 0: clip the range at the smallest positive value of its panel.
        floor = data[["min", "mean"]].where(lambda values: values > 0).min(axis="columns").groupby(data["panel"]).min()
        data["min"] = data["min"].where(data["min"] > 0, data["panel"].map(floor))
    data["panel"] = pd.Categorical(data["panel"], categories=panels, ordered=True)
    data["batch_size"] = style.as_batch_size_categories(data["batch_size"])
    return (
        p9.ggplot(data, p9.aes("epoch", "mean", color="batch_size", fill="batch_size"))
        + p9.geom_ribbon(p9.aes(ymin="min", ymax="max"), alpha=0.2, color="none")
        + p9.geom_line(size=0.7)
        + p9.facet_wrap("panel", scales=scales, ncol=columns)
        + p9.scale_x_log10(labels=style.tick_labels)
        + axis.y_scale()
        + style.captions(not_drawn)
        + style.batch_size_scales(batch_sizes)
        + style.theme()
    )


def panel_rows(rows: pd.DataFrame, quantity: str, name: str) -> pd.DataFrame:
    """Return the mean and range of a quantity as rows of the panel `name`."""
    statistics = {statistic: rows[f"{quantity}_{statistic}"] for statistic in ("mean", "min", "max")}
    return rows[["batch_size", "epoch"]].assign(panel=name, **statistics)


def epochs_with_all_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the epochs in which all seeds of a setting that did not diverge still train.

    In later epochs the mean would jump whenever a run ends.
    """
    n_seeds = rows.groupby("setting")["n_seeds"].transform("max")
    return rows[(rows["n_seeds"] == n_seeds) & (rows["n_seeds"] > 0)]


def first_evaluations(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the first evaluation of each setting, which count each of its runs once."""
    return rows[rows["epoch"] == rows.groupby("setting")["epoch"].transform("min")]


def subtitle(rows: pd.DataFrame) -> str:
    """Return what lines and bands show."""
    first = first_evaluations(rows)
    seeds = style.describe_seeds(first["n_seeds"], first["n_diverged"])
    return f"Mean and range over {seeds} while all of them train; epochs within 5 % are averaged"
