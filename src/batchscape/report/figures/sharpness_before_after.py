"""Sharpness of the minimum by batch size and arm."""

import pandas as pd
import plotnine as p9

from batchscape.report.figures.by_arm import plot_by_arm, subtitle

NO_SHARPNESS = "No run has a sharpness to draw here: it diverged, or its loss is negative. See tables/sharpness.csv."
PANELS = {"sharpness": "Keskar φ in the full space, at the largest ε"}


def draw(arm_runs: pd.DataFrame, scaled_lr: pd.DataFrame) -> p9.ggplot:
    return plot_by_arm(arm_runs, scaled_lr, PANELS, NO_SHARPNESS) + p9.labs(
        title="Sharpness of the minimum, before and after LR scaling",
        subtitle=subtitle(scaled_lr, PANELS),
        x="Batch size",
        y="φ (percent of 1 + loss)",
    )
