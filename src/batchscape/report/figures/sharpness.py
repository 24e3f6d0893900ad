"""Sharpness of the training loss by batch size, at the fixed learning rate."""

import pandas as pd
import plotnine as p9

from batchscape.report.figures import style
from batchscape.report.figures.by_batch_size import plot_by_batch_size
from batchscape.report.settings import at_learning_rate

NAMES = {
    "keskar": "Keskar φ (%)\nε = {radius:g}",
    "keskar_subspace": "Subspace φ (%)\nε = {radius:g}",
    "adaptive": "Adaptive (nats)\nρ = {radius:g}",
    "hessian_eigenvalue": "Top eigenvalue\n(nats/unit²)",
    "hessian_trace": "Hessian trace\n(nats/unit²)",
}


def draw(sharpness: pd.DataFrame, table: pd.DataFrame, *, fixed_learning_rate: float) -> p9.ggplot:
    """`sharpness` gives the points of seeds, `table` means and standard deviations; at `best` if it was analyzed."""
    rate = style.learning_rate_label(fixed_learning_rate)
    names = list(sharpness["checkpoint"])
    checkpoint = "best" if "best" in names else names[0]
    seeds, summary = (
        at_learning_rate(frame[frame["checkpoint"] == checkpoint], fixed_learning_rate) for frame in (sharpness, table)
    )
    not_computed = summary[summary["not_computed"] != "none"]
    seeds, summary = (frame[frame["not_computed"] == "none"] for frame in (seeds, summary))
    if summary.empty:
        missing = f"No sharpness at {rate}."
        return style.empty_plot("\n".join(_not_computed(not_computed)) or missing)
    panels = _panel(summary)
    order = [name for measure in NAMES for name in sorted(set(panels[summary["measure"] == measure]))]
    seeds = seeds.assign(panel=_panel(seeds))[seeds["status"] != "diverged"]
    rows = summary.assign(panel=panels, mean=summary["value_mean"], sd=summary["value_sd"])
    rows = rows.sort_values("panel", key=lambda names: names.map(order.index), kind="stable")
    first_panel = summary[panels == order[0]]
    return (
        plot_by_batch_size(seeds, rows, scales="free_y")
        + p9.labs(
            title=f"Sharpness at the {style.weights_label(checkpoint)}, {rate}",
            subtitle="\n".join([style.describe_spread(first_panel), *_not_computed(not_computed)]),
            x="Batch size",
            y="",
        )
        + p9.theme(figure_size=(style.WIDTH, 1.4 * style.HEIGHT))
    )


def _not_computed(summary: pd.DataFrame) -> list[str]:
    """Return the measures that were not computed, and why."""
    reasons = summary.groupby("not_computed", sort=False)["measure"].unique()
    return [
        style.wrap(f"Not computed ({', '.join(NAMES[name].replace(chr(10), ' ') for name in names)}): {reason}")
        for reason, names in reasons.items()
    ]


def _panel(rows: pd.DataFrame) -> pd.Series:
    names = [NAMES[row.measure].format(radius=row.radius) for row in rows.itertuples()]
    return pd.Series(names, index=rows.index, dtype=object)
