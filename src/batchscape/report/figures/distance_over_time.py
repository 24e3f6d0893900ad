"""Distance from the initial weights against the logarithm of time, at the fixed learning rate."""

import numpy as np
import pandas as pd
import plotnine as p9

from batchscape.report.figures import style
from batchscape.report.figures.by_epoch import epochs_with_all_seeds, subtitle
from batchscape.report.settings import at_learning_rate


def draw(table: pd.DataFrame, fits: pd.DataFrame, *, fixed_learning_rate: float) -> p9.ggplot:
    """`table` gives the lines, `fits` the logarithms through them."""
    chosen = at_learning_rate(table, fixed_learning_rate)
    rows = epochs_with_all_seeds(chosen).dropna(subset=["distance_mean"])
    fits = at_learning_rate(fits, fixed_learning_rate).dropna(subset=["log_slope_mean"])
    plot = style.empty_plot() if rows.empty else _lines(rows, fits, table["batch_size"])
    return plot + p9.labs(
        title=f"Distance over time, {style.learning_rate_label(fixed_learning_rate)}",
        subtitle=subtitle(chosen) + (f"\n{style.wrap(_compared(fits))}" if len(rows) else ""),
        x="Steps",
        y=r"$\|\theta_t-\theta_{init}\|$",
    )


def _lines(rows: pd.DataFrame, fits: pd.DataFrame, batch_sizes: pd.Series) -> p9.ggplot:
    ends = rows.groupby("batch_size")["step"].agg(["min", "max"])
    straight = fits.merge(ends, on="batch_size").melt(
        ["batch_size", "log_intercept_mean", "log_slope_mean"], ["min", "max"], value_name="steps"
    )
    straight["distance_mean"] = straight["log_intercept_mean"] + straight["log_slope_mean"] * np.log(straight["steps"])
    rows = style.thin_epochs(rows.rename(columns={"step": "steps"}), ["batch_size"])
    rows, straight = (
        frame.assign(batch_size=style.as_batch_size_categories(frame["batch_size"])) for frame in (rows, straight)
    )
    return (
        p9.ggplot(rows, p9.aes("steps", "distance_mean", color="batch_size", fill="batch_size"))
        + p9.geom_ribbon(p9.aes(ymin="distance_min", ymax="distance_max"), alpha=0.15, color="none")
        + p9.geom_line(straight, linetype="dashed", size=0.5, show_legend=False)
        + p9.geom_line(size=0.7)
        + p9.scale_x_log10(labels=style.tick_labels)
        + p9.scale_y_continuous(labels=style.tick_labels)
        + style.batch_size_scales(batch_sizes)
        + style.theme()
    )


def _compared(fits: pd.DataFrame) -> str:
    """Say how well the logarithm fits, and how well a power law, from the worst to the best batch size."""
    if fits.empty:
        return "No fits: they take three epochs, and distances that are not all the same"
    log, power = (
        " to ".join(
            dict.fromkeys(f"{value:.3f}" for value in (fits[f"{name}_r2_mean"].min(), fits[f"{name}_r2_mean"].max()))
        )
        for name in ("log", "power")
    )
    return f"Dashed: fits a + b·ln t, R² {log}; power laws c·t^k, not drawn, have R² {power}"
