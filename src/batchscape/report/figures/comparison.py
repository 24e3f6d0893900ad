"""Critical batch size and best learning rates of several studies, side by side with their intervals."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotnine as p9

from batchscape.report.figures import style

CRITICAL, RATE = "Critical batch size", "Best learning rate"
INSIDE, BOUND, TUNED = "between tried values", "bound, or extrapolated", "found by the search"


def draw(comparison: pd.DataFrame, studies: Sequence[str]) -> p9.ggplot:
    """`comparison` gives values and intervals, `studies` their order from the top."""
    rows = _select(comparison)
    labels = p9.labs(
        title="Critical batch size and best learning rate by study",
        subtitle=(
            "Points: estimates, of the critical batch size for the first target; bars: 95 % intervals over seeds, "
            "where there are any, cut where they have no finite end. Diamonds are bounds or extrapolated"
        ),
        x="",
        y="",
    )
    if rows.empty:
        return style.empty_plot("No study has a critical batch size or a best learning rate.") + labels
    sizes = style.batch_size_labels(int(size) for size in rows["size"] if size)
    return _panels(rows, list(studies), sizes) + labels


def _select(comparison: pd.DataFrame) -> pd.DataFrame:
    """Return the rows to draw, with their panel, batch size and kind."""
    critical = comparison[comparison["quantity"] == "critical_batch"].drop_duplicates("study")
    critical = critical.assign(panel=CRITICAL, size="")
    rates = comparison[comparison["quantity"].isin(["best_learning_rate", "tuned_learning_rate"])]
    rates = rates.assign(panel=RATE, size=rates["of"].str.removeprefix("batch size "))
    rows = pd.concat([critical, rates], ignore_index=True)
    rows = rows[np.isfinite(rows["value"]) & (rows["value"] > 0)]
    kind = rows["verdict"].isin(["bound", "outside"]).map({True: BOUND, False: INSIDE})
    return rows.assign(kind=kind.mask(rows["quantity"].eq("tuned_learning_rate"), TUNED))


def _panels(rows: pd.DataFrame, studies: list[str], sizes: list[str]) -> p9.ggplot:
    panels = [panel for panel in (CRITICAL, RATE) if panel in set(rows["panel"])]
    # Batch sizes are placed one above the other around the place of their study.
    offset = {"": 0.0} | {
        size: 0.7 * ((index + 0.5) / len(sizes) - 0.5) if len(sizes) > 1 else 0.0 for index, size in enumerate(sizes)
    }
    place = {name: len(studies) - index for index, name in enumerate(studies)}
    rows = rows.assign(
        y=rows["study"].map(place) - rows["size"].map(offset),
        panel=pd.Categorical(rows["panel"], categories=panels, ordered=True),
        size=pd.Categorical(rows["size"].where(rows["size"].ne(""), "all"), categories=["all", *sizes], ordered=True),
    )
    known = rows.dropna(subset=["ci95_low", "ci95_high"])
    finite = known.loc[np.isfinite(known[["ci95_low", "ci95_high"]]).all(axis=1)]
    # An interval without a finite end reaches beyond all values that are drawn.
    drawn = pd.concat([rows["value"], finite["ci95_low"], finite["ci95_high"]]).groupby(level=0)
    limits = pd.DataFrame({"low": drawn.min(), "high": drawn.max()}).groupby(rows["panel"], observed=True)
    lowest, highest = limits["low"].min() / 3, limits["high"].max() * 3
    bars = known.assign(
        low=np.maximum(known["ci95_low"], known["panel"].map(lowest).astype(float)),
        high=np.minimum(known["ci95_high"], known["panel"].map(highest).astype(float)),
    )
    colors = {"all": "#000000"} | (style.batch_size_colors(pd.Series(sizes)) if sizes else {})
    # In widths of a panel: each study takes a line for its name, and one for each of its batch sizes.
    height = max(0.4, (0.2 + 0.05 * len(sizes)) * len(studies))
    return (
        p9.ggplot(rows, p9.aes("value", "y", color="size"))
        + p9.geom_segment(p9.aes(x="low", xend="high", yend="y"), bars, size=0.6, show_legend=False)
        + p9.geom_point(p9.aes(shape="kind"), size=2.6, fill="white", stroke=0.9)
        + p9.facet_wrap("panel", scales="free_x")
        + p9.scale_x_log10(labels=style.tick_labels)
        + p9.scale_y_continuous(
            breaks=[place[name] for name in studies],
            labels=studies,
            minor_breaks=[],
            limits=(0.4, len(studies) + 0.6),
        )
        + p9.scale_shape_manual(values={INSIDE: "o", BOUND: "D", TUNED: "x"}, name="Value")
        + p9.scale_color_manual(values=colors, breaks=sizes, name="Batch size")
        + style.theme()
        + p9.theme(aspect_ratio=height, legend_box="vertical", legend_box_just="left")
    )
