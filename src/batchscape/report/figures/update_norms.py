"""The distribution of batch-update norms by batch size at the fixed learning rate."""

import pandas as pd
import plotnine as p9

from batchscape.report.figures import style
from batchscape.report.settings import at_rate


def draw(update_norms: pd.DataFrame, table: pd.DataFrame, *, fixed_learning_rate: float) -> p9.ggplot:
    """`update_norms` gives the percentiles of each run, whose pool is the shape; `table` the medians."""
    rows = at_rate(update_norms[update_norms["status"] != "diverged"], fixed_learning_rate)
    rows, caption = style.drawable(rows, "update_norm", log=True)
    chosen = at_rate(table, fixed_learning_rate)
    plot = style.nothing_to_draw() if rows.empty else _distributions(rows, chosen, update_norms["batch_size"])
    seeds = style.seeds_name(chosen["n_seeds"], chosen["n_diverged"])
    return (
        plot
        + caption
        + p9.labs(
            title=f"Size of a batch update, {style.rate_name(fixed_learning_rate)}",
            subtitle=style.wrapped(f"1st to 99th percentile of all updates; the labels are medians, mean over {seeds}"),
            x="Batch size",
            y=r"$\|\theta_{t+1}-\theta_t\|$",
        )
    )


def _distributions(rows: pd.DataFrame, table: pd.DataFrame, batch_sizes: pd.Series) -> p9.ggplot:
    rows = rows.assign(batch_size=style.as_batch_size(rows["batch_size"]))
    medians, _ = style.drawable(table, "update_norm_p50_mean", log=True)
    medians = medians.assign(
        batch_size=style.as_batch_size(medians["batch_size"]), text=medians["update_norm_p50_mean"].map("{:.2g}".format)
    )
    sizes = style.batch_sizes(table["batch_size"].astype(int))
    return (
        p9.ggplot(rows, p9.aes("batch_size", "update_norm", fill="batch_size"))
        + p9.geom_violin(color="none", alpha=0.8, show_legend=False)
        + p9.geom_label(p9.aes(y="update_norm_p50_mean", label="text"), medians, fill="white", size=9, label_size=0)
        + p9.scale_x_discrete(limits=sizes)
        + p9.scale_y_log10(labels=style.decimals)
        + style.batch_size_scales(batch_sizes)
        + style.theme()
    )
