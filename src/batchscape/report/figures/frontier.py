"""Time and steps against examples to the first target, by batch size, with the Pareto front."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import plotnine as p9

from batchscape.report.figures import style
from batchscape.report.measures import Measures
from batchscape.report.targets import LOSS, describe_target, first_target

ON_FRONT, OFF_FRONT = "on the Pareto front", "not on it"


def draw(runs: pd.DataFrame, frontier: pd.DataFrame, *, measures: Mapping[str, Any]) -> p9.ggplot:
    """`runs`, the table `runs_to_target`, gives the points of seeds, `frontier` means; the first target is drawn."""
    words = Measures.from_settings(measures)
    runs = first_target(runs)
    name, value = runs["target"].iloc[0], runs["target_value"].iloc[0]
    # A target without a value is not reached, so it has no rows.
    table = frontier[frontier["target"].eq(name) & frontier["target_value"].eq(value)]
    quantity = LOSS if name == LOSS else words.metric(name).label
    return (style.empty_plot() if table.empty else _panels(runs, table, runs["batch_size"])) + p9.labs(
        title=f"Time and steps against examples to the target validation {quantity}",
        subtitle=_subtitle(table, describe_target(name, value, words)),
        x="Examples to the target",
        y="",
    )


def _panels(runs: pd.DataFrame, table: pd.DataFrame, batch_sizes: pd.Series) -> p9.ggplot:
    unit = table["time_unit"].iloc[0]
    panels = {"time": f"Time to the target ({unit})", "steps": "Steps to the target"}
    runs = runs[runs["setting"].isin(table["setting"]) & runs["status"].ne("diverged")].dropna(subset=["steps"])
    runs = runs.assign(time=runs["cpu_seconds" if unit == "CPU s" else "seconds"])
    seeds, means = (
        pd.concat(
            [
                rows.assign(
                    panel=pd.Categorical([panel] * len(rows), categories=list(panels.values()), ordered=True),
                    x=rows[f"examples{suffix}"],
                    value=rows[f"{name}{suffix}"],
                    size=style.as_batch_size_categories(rows["batch_size"]),
                )
                for name, panel in panels.items()
            ]
        )
        for rows, suffix in ((runs, ""), (table, "_mean"))
    )
    means["front"] = means["is_pareto"].eq(1).map({True: ON_FRONT, False: OFF_FRONT})
    front = means[(means["is_pareto"] == 1) & (means["panel"] == panels["time"])].sort_values("x")
    return (
        p9.ggplot(means, p9.aes("x", "value"))
        + p9.geom_line(data=front if len(front) > 1 else front.iloc[:0], color="#666666", size=0.6)
        + p9.geom_point(p9.aes(color="size"), seeds, alpha=0.5, size=1.4, show_legend=False)
        + p9.geom_point(p9.aes(color="size", shape="front"), size=3.5, fill="white", stroke=1)
        + p9.facet_wrap("panel", scales="free_y")
        + p9.scale_x_log10(labels=style.tick_labels)
        + p9.scale_y_log10(labels=style.tick_labels)
        + p9.scale_shape_manual(values={ON_FRONT: "o", OFF_FRONT: "X"}, name="Time and examples")
        + p9.scale_color_manual(values=style.batch_size_colors(batch_sizes), name="Batch size")
        + style.theme()
        + p9.theme(legend_box="vertical", legend_margin=0)
    )


def _subtitle(table: pd.DataFrame, goal: str) -> str:
    if table.empty:
        return "No run reached the target" + (f", {goal}" if goal else "")
    seeds = style.describe_seeds(table["n_seeds"], table["n_diverged"])
    return (
        f"Target {goal}, at the best setting of each batch size; small points: seeds; large points: mean over {seeds}. "
        "Crosses: another batch size takes no more time and no more examples"
    )
