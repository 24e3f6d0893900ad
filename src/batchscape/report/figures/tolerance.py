"""The range of learning rates that are nearly as good as the best one, and its width, by batch size."""

import numpy as np
import pandas as pd
import plotnine as p9

from batchscape.report.figures import style

RATES, WIDTH = "Learning rates", "Ratio of highest to lowest"
CUT, INSIDE = "at least so far", "between tried rates"


def draw(tolerance: pd.DataFrame, *, margin: float) -> p9.ggplot:
    """`tolerance` gives the ranges, with the best tried rates, and their widths with intervals."""
    table = tolerance.dropna(subset=["width"])
    return (style.empty_plot() if table.empty else _panels(table, tolerance["batch_size"])) + p9.labs(
        title=f"Learning rates whose loss is within {100 * margin:.3g} % of the best",
        subtitle=_subtitle(table, tolerance),
        x="Batch size",
        y="",
    )


def _panels(table: pd.DataFrame, batch_sizes: pd.Series) -> p9.ggplot:
    table = table.assign(size=style.as_batch_size_categories(table["batch_size"]))
    best = table.assign(panel=RATES, value=table["best_learning_rate"])
    ends = pd.concat(
        [
            table.assign(panel=RATES, value=table[f"{side}est_learning_rate"], end=table[f"{side}_end"])
            for side in ("low", "high")
        ]
    )
    ends["end"] = ends["end"].eq("inside").map({True: INSIDE, False: CUT})
    ranges = table.assign(panel=RATES, low=table["lowest_learning_rate"], high=table["highest_learning_rate"])
    is_cut = table[["low_end", "high_end"]].ne("inside").any(axis=1)
    widths = table.assign(panel=WIDTH, value=table["width"], end=is_cut.map({True: CUT, False: INSIDE}))
    intervals = widths.assign(low=widths["ci95_low"], high=widths["ci95_high"])
    intervals = intervals[np.isfinite(intervals[["low", "high"]]).all(axis=1)]
    marks = _order(pd.concat([ends, widths]))
    return (
        p9.ggplot(marks, p9.aes("size", "value"))
        + p9.geom_linerange(p9.aes("size", ymin="low", ymax="high"), _order(ranges), inherit_aes=False, size=1.2)
        + p9.geom_linerange(p9.aes("size", ymin="low", ymax="high"), _order(intervals), inherit_aes=False, size=0.6)
        + p9.geom_point(p9.aes(shape="end", color="size"), size=3, fill="white", stroke=1)
        + p9.geom_point(p9.aes("size", "value"), _order(best), shape="*", size=3.5, inherit_aes=False)
        + p9.facet_wrap("panel", scales="free_y")
        + p9.scale_y_log10(labels=style.tick_labels)
        + p9.scale_shape_manual(values={INSIDE: "o", CUT: "D"}, name="End of the range")
        + p9.scale_color_manual(values=style.batch_size_colors(batch_sizes), guide=None)
        + style.theme()
    )


def _order(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(panel=pd.Categorical(rows["panel"], categories=[RATES, WIDTH], ordered=True))


def _subtitle(table: pd.DataFrame, tolerance: pd.DataFrame) -> str:
    if len(tolerance) and table.empty:
        return "No batch size has a range: every rate diverged, or a loss is not positive"
    seeds = tolerance["n_seeds"].max() if len(tolerance) else 0
    over = style.describe_seeds([seeds], [])
    interval = "thin lines: 95 % interval, where there is one" if seeds > 1 else "one seed, therefore no interval"
    return (
        f"Stars: best tried rate; bars: the range around it, by the mean loss over {over}; "
        f"{interval}. Diamonds: cut by the edge of the tried rates or by a rate that diverged"
    )
