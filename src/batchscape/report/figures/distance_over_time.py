"""Distance from the initial weights against the logarithm of time, at the fixed learning rate."""

import numpy as np
import pandas as pd
import plotnine as p9

from batchscape.report.figures import style
from batchscape.report.figures.by_epoch import epochs_with_all_seeds, subtitle
from batchscape.report.settings import at_learning_rate


def draw(table: pd.DataFrame, fits: pd.DataFrame, *, fixed_learning_rate: float) -> p9.ggplot:
    """`table` gives the lines, `fits` the logarithmic fits."""
    chosen = at_learning_rate(table, fixed_learning_rate)
    rows = epochs_with_all_seeds(chosen).dropna(subset=["distance_mean"])
    fits = at_learning_rate(fits, fixed_learning_rate).dropna(subset=["log_slope_mean"])
    plot = style.empty_plot() if rows.empty else _lines(rows, fits, table["batch_size"])
    return plot + p9.labs(
        title=f"Distance over time, {style.learning_rate_label(fixed_learning_rate)}",
        subtitle=subtitle(chosen) + (f"\n{_compare_fits(fits)}" if len(rows) else ""),
        x="Steps",
        y=style.DISTANCE_LABEL,
    )


def _lines(rows: pd.DataFrame, fits: pd.DataFrame, batch_sizes: pd.Series) -> p9.ggplot:
    ends = rows.groupby("batch_size")["step"].agg(["min", "max"])
    fitted = fits.merge(ends, on="batch_size").melt(
        ["batch_size", "log_intercept_mean", "log_slope_mean"], ["min", "max"], value_name="steps"
    )
    fitted["distance_mean"] = fitted["log_intercept_mean"] + fitted["log_slope_mean"] * np.log(fitted["steps"])
    rows = style.thin_epochs(rows.rename(columns={"step": "steps"}), ["batch_size"])
    rows, fitted = (
        frame.assign(batch_size=style.as_batch_size_categories(frame["batch_size"])) for frame in (rows, fitted)
    )
    return (
        p9.ggplot(rows, p9.aes("steps", "distance_mean", color="batch_size", fill="batch_size"))
        + p9.geom_ribbon(p9.aes(ymin="distance_min", ymax="distance_max"), alpha=0.15, color="none")
        + p9.geom_line(fitted, linetype="dashed", size=0.5, show_legend=False)
        + p9.geom_line(size=0.7)
        + p9.scale_x_log10(labels=style.tick_labels)
        + p9.scale_y_continuous(labels=style.tick_labels)
        + style.batch_size_scales(batch_sizes)
        + style.theme()
    )


def _compare_fits(fits: pd.DataFrame) -> str:
    """Return the R² of the logarithmic fits and of the power laws, from the worst to the best batch size."""
    if fits.empty:
        return "No fits: they need three epochs and distances that differ"
    log, power = (
        " to ".join(
            dict.fromkeys(f"{value:.3f}" for value in (fits[f"{name}_r2_mean"].min(), fits[f"{name}_r2_mean"].max()))
        )
        for name in ("log", "power")
    )
    return f"Dashed: logarithmic fit a + b·ln t, R² {log}; power law c·t^k (not drawn), R² {power}"
