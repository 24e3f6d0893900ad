"""Training and validation loss by epoch at one learning rate: what the figures of the fixed and the high arm share."""

import pandas as pd
import plotnine as p9

from batchscape.report.figures import style


def loss_curves(curves: pd.DataFrame, learning_rate: float) -> p9.ggplot:
    """One line a batch size: the mean over seeds, drawn while all seeds still train; the band is their range."""
    rows = curves[curves["learning_rate"] == learning_rate]
    complete = rows.groupby("batch_size")["n_seeds"].transform("max")
    rows = rows[(rows["n_seeds"] == complete) & (rows["n_seeds"] > 0)]
    if rows.empty:
        return style.nothing_to_draw()
    parts = [
        pd.DataFrame(
            {
                "panel": name,
                "batch_size": style.as_batch_size(rows["batch_size"]),
                "epoch": rows["epoch"].to_numpy(),
                **{statistic: rows[f"{loss}_{statistic}"].to_numpy() for statistic in ("mean", "min", "max")},
            }
        )
        for loss, name in style.LOSS_NAMES.items()
    ]
    data = style.thinned(pd.concat(parts, ignore_index=True), ["panel", "batch_size"])
    first = curves[(curves["learning_rate"] == learning_rate) & (curves["epoch"] == 1)]
    return (
        p9.ggplot(data, p9.aes("epoch", "mean", color="batch_size", fill="batch_size"))
        + p9.geom_ribbon(p9.aes(ymin="min", ymax="max"), alpha=0.2, color="none")
        + p9.geom_line(size=0.7)
        + p9.facet_wrap("panel")
        + p9.scale_x_log10(labels=style.decimals)
        + p9.scale_y_log10(labels=style.decimals)
        + style.batch_size_scales(curves["batch_size"])
        + p9.labs(
            title=f"Loss by epoch at {style.rate_name(learning_rate)}",
            subtitle=f"Mean and range over {style.seeds_name(first['n_seeds'], first['n_diverged'])}, "
            "while all of them train; epochs within 5 % of one another are averaged",
            x="Epoch",
            y="Binary cross-entropy (nats)",
        )
        + style.theme()
    )
