"""The distribution of the norms of batch updates by batch size, at the fixed learning rate."""

import pandas as pd
import plotnine as p9

from batchscape.report.figures import style
from batchscape.report.settings import at_learning_rate


def draw(update_norms: pd.DataFrame, table: pd.DataFrame, *, fixed_learning_rate: float) -> p9.ggplot:
    """`update_norms` gives the percentiles of each run, which are pooled; `table` the medians."""
    rows = at_learning_rate(update_norms[update_norms["status"] != "diverged"], fixed_learning_rate)
    rows, not_drawn = style.keep_drawable(rows, "update_norm", log=True)
    at_rate = at_learning_rate(table, fixed_learning_rate)
    plot = style.empty_plot() if rows.empty else _distributions(rows, at_rate, update_norms["batch_size"])
    seeds = style.describe_seeds(at_rate["n_seeds"], at_rate["n_diverged"])
    return (
        plot
        + style.captions(not_drawn)
        + p9.labs(
            title=f"Norm of a batch update, {style.learning_rate_label(fixed_learning_rate)}",
            subtitle=f"1st to 99th percentile of all updates; labels: medians, mean over {seeds}",
            x="Batch size",
            y="Norm ‖Δθ‖ of a batch update",
        )
    )


def _distributions(rows: pd.DataFrame, table: pd.DataFrame, batch_sizes: pd.Series) -> p9.ggplot:
    rows = rows.assign(batch_size=style.as_batch_size_categories(rows["batch_size"]))
    medians, _ = style.keep_drawable(table, "update_norm_p50_mean", log=True)
    medians = medians.assign(
        batch_size=style.as_batch_size_categories(medians["batch_size"]),
        text=medians["update_norm_p50_mean"].map("{:.2g}".format),
    )
    sizes = style.batch_size_labels(table["batch_size"].astype(int))
    return (
        p9.ggplot(rows, p9.aes("batch_size", "update_norm", fill="batch_size"))
        + p9.geom_violin(color="none", alpha=0.8, show_legend=False)
        + p9.geom_label(p9.aes(y="update_norm_p50_mean", label="text"), medians, fill="white", label_size=0)
        + p9.scale_x_discrete(limits=sizes)
        + p9.scale_y_log10(labels=style.tick_labels)
        + style.batch_size_scales(batch_sizes)
        + style.theme()
    )
