"""How far the weights move, in all and in a step, by batch size, in every arm."""

import pandas as pd
import plotnine as p9

from batchscape.report.figures.by_arm import plot_by_arm, subtitle

PANELS = {
    "distance": "Distance of the minimiser from the start",
    "update_norm": "Median norm of a batch update",
}


def draw(arm_runs: pd.DataFrame, scaled_lr: pd.DataFrame) -> p9.ggplot:
    return plot_by_arm(arm_runs, scaled_lr, PANELS) + p9.labs(
        title="How far the weights move, before and after LR scaling",
        subtitle=subtitle(scaled_lr, PANELS),
        x="Batch size",
        y="Euclidean norm",
    )
