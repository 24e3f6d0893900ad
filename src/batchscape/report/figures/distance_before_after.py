"""How far the weights move in total and per step, by batch size and arm."""

import pandas as pd
import plotnine as p9

from batchscape.report.figures.by_arm import plot_by_arm, subtitle

PANELS = {
    "distance": "Distance from the initial weights",
    "update_norm": "Median norm of a batch update",
}


def draw(arm_runs: pd.DataFrame, scaled_lr: pd.DataFrame) -> p9.ggplot:
    return plot_by_arm(arm_runs, scaled_lr, PANELS) + p9.labs(
        title="How far the weights move, before and after LR scaling",
        subtitle=subtitle(scaled_lr, PANELS),
        x="Batch size",
        y="Euclidean norm",
    )
