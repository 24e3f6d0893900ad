"""Sharpness of the training loss by batch size, at the fixed learning rate."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import plotnine as p9

from batchscape.report.figures import style
from batchscape.report.figures.by_batch_size import plot_by_batch_size
from batchscape.report.measures import Measures, add_unit
from batchscape.report.settings import at_learning_rate

NAMES = {
    "keskar": "Keskar φ (%)\nε = {radius:g}",
    "keskar_subspace": "Subspace φ (%)\nε = {radius:g}",
    "adaptive": "Adaptive{loss_unit}\nρ = {radius:g}",
    "hessian_eigenvalue": "Top eigenvalue\n({curvature_unit})",
    "hessian_trace": "Hessian trace\n({curvature_unit})",
}


def draw(
    sharpness: pd.DataFrame, table: pd.DataFrame, *, fixed_learning_rate: float, measures: Mapping[str, Any]
) -> p9.ggplot:
    """`sharpness` gives the points of seeds, `table` means and standard deviations; at `best` if it was analyzed."""
    rate = style.learning_rate_label(fixed_learning_rate)
    words = Measures.from_settings(measures)
    units = {"loss_unit": add_unit("", words.loss_unit), "curvature_unit": words.per_weight("²")}
    names = list(sharpness["checkpoint"])
    checkpoint = "best" if "best" in names else names[0]
    seeds, summary = (
        at_learning_rate(frame[frame["checkpoint"] == checkpoint], fixed_learning_rate) for frame in (sharpness, table)
    )
    not_computed = summary[summary["not_computed"] != "none"]
    seeds, summary = (frame[frame["not_computed"] == "none"] for frame in (seeds, summary))
    if summary.empty:
        missing = f"No sharpness at {rate}."
        return style.empty_plot("\n".join(_not_computed(not_computed, units)) or missing)
    panels = _panel(summary, units)
    order = [name for measure in NAMES for name in sorted(set(panels[summary["measure"] == measure]))]
    seeds = seeds.assign(panel=_panel(seeds, units))[seeds["status"] != "diverged"]
    rows = summary.assign(panel=panels, mean=summary["value_mean"], sd=summary["value_sd"])
    rows = rows.sort_values("panel", key=lambda names: names.map(order.index), kind="stable")
    first_panel = summary[panels == order[0]]
    return plot_by_batch_size(seeds, rows, scales="free_y") + p9.labs(
        title=f"Sharpness at the {style.weights_label(checkpoint)}, {rate}",
        subtitle="\n".join([style.describe_spread(first_panel), *_not_computed(not_computed, units)]),
        x="Batch size",
        y="",
    )


def _not_computed(summary: pd.DataFrame, units: Mapping[str, str]) -> list[str]:
    """Return the measures that were not computed, and why."""
    reasons = summary.assign(title=_panel(summary, units)).groupby("not_computed", sort=False)["title"].unique()
    return [
        f"Not computed ({', '.join(title.replace(chr(10), ' ') for title in titles)}): {reason}"
        for reason, titles in reasons.items()
    ]


def _panel(rows: pd.DataFrame, units: Mapping[str, str]) -> pd.Series:
    names = [NAMES[row.measure].format(radius=row.radius, **units) for row in rows.itertuples()]
    return pd.Series(names, index=rows.index, dtype=object)
