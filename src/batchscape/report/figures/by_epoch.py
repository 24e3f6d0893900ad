"""A quantity by epoch, in panels: one line a batch size, the mean over seeds, in the band of their range."""

import pandas as pd
import plotnine as p9

from batchscape.report.figures import style


def plot_by_epoch(
    data: pd.DataFrame, batch_sizes: pd.Series, scales: str = "fixed", columns: int | None = None
) -> p9.ggplot:
    """Return the plot without its labels; both axes are logarithmic.

    `data` has the columns panel, batch_size, epoch, mean, min and max, a row an epoch; `batch_sizes` are those of the
    study, so that each has its colour here even if another one has nothing to draw. Panels stand in the order of
    `data`; `scales` is `fixed` for panels of one quantity, `free_y` for several; `columns` of them stand
    beside one another.
    """
    data, caption = style.keep_drawable(data, "mean", log=True)
    if data.empty:
        return style.empty_plot()
    panels = list(dict.fromkeys(data["panel"]))
    data = style.thin_epochs(data, ["panel", "batch_size"])
    # A band down to 0 has no end on this axis: it reaches to the least number of its panel.
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
        + p9.scale_y_log10(labels=style.tick_labels)
        + caption
        + style.batch_size_scales(batch_sizes)
        + style.theme()
    )


def panel_rows(rows: pd.DataFrame, quantity: str, name: str) -> pd.DataFrame:
    """Return the mean and range of a quantity of a table as the rows of one panel."""
    statistics = {statistic: rows[f"{quantity}_{statistic}"] for statistic in ("mean", "min", "max")}
    return rows[["batch_size", "epoch"]].assign(panel=name, **statistics)


def epochs_with_all_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the epochs in which all seeds of a batch size that did not diverge still train.

    Beyond, the mean would jump as runs end.
    """
    everyone = rows.groupby("batch_size")["n_seeds"].transform("max")
    return rows[(rows["n_seeds"] == everyone) & (rows["n_seeds"] > 0)]


def subtitle(rows: pd.DataFrame) -> str:
    """Say what a table's lines and bands are; the first epoch counts every run of a setting once."""
    first = rows[rows["epoch"] == 1]
    seeds = style.describe_seeds(first["n_seeds"], first["n_diverged"])
    return style.wrap(f"Mean and range over {seeds}, while all train; epochs within 5 % averaged")
