"""Least validation loss by learning rate, one line a batch size, with the best rate of each."""

import pandas as pd
import plotnine as p9

from batchscape.report.figures import style


def draw(runs: pd.DataFrame, lr_grid: pd.DataFrame, best_lr: pd.DataFrame) -> p9.ggplot:
    """`runs` gives the points, `lr_grid` the lines, `best_lr` the marks."""
    loss = "least_validation_loss"
    seeds = runs[runs["status"] != "diverged"].dropna(subset=[loss])
    lines = lr_grid.dropna(subset=[f"{loss}_mean"])
    if lines.empty:
        return style.nothing_to_draw()
    best = best_lr.dropna(subset=["best_learning_rate"])
    best = best.assign(learning_rate=best["best_learning_rate"], place=best["edge"].map(_place))
    seeds, lines, best = (
        frame.assign(batch_size=style.as_batch_size(frame["batch_size"])) for frame in (seeds, lines, best)
    )
    rates = sorted(lines["learning_rate"].unique())
    return (
        p9.ggplot(lines, p9.aes("learning_rate", f"{loss}_mean", color="batch_size"))
        + p9.geom_point(p9.aes(y=loss), seeds, alpha=0.4, size=1.4, show_legend=False)
        + p9.geom_line(size=0.7)
        + p9.geom_point(p9.aes(shape="place"), best, size=4, fill="white", stroke=1)
        + p9.scale_x_log10(breaks=rates, minor_breaks=[], labels=style.decimals)
        + p9.scale_y_log10(labels=style.decimals)
        + p9.scale_shape_manual(values={"inside the range": "*", "on the edge": "D"}, name="Best learning rate")
        + style.batch_size_scales(runs["batch_size"])
        + p9.labs(
            title="Least validation loss by learning rate",
            subtitle=f"Each seed, and mean over {style.seeds_name(lr_grid['n_seeds'], lr_grid['n_diverged'])}; "
            "a best rate on the edge of the range is a bound, not an optimum",
            x="Learning rate",
            y="Least validation loss (nats)",
        )
        + style.theme()
    )


def _place(edge: str) -> str:
    return "inside the range" if edge == "none" else "on the edge"
