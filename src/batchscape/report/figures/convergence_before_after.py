"""Where training ends and what it costs, by batch size and arm."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import plotnine as p9

from batchscape.report.figures.by_arm import plot_by_arm, subtitle
from batchscape.report.figures.convergence import panel_titles


def draw(arm_runs: pd.DataFrame, scaled_lr: pd.DataFrame, *, measures: Mapping[str, Any]) -> p9.ggplot:
    panels = panel_titles(measures)
    return plot_by_arm(arm_runs, scaled_lr, panels) + p9.labs(
        title="Where training ends, before and after LR scaling",
        subtitle=subtitle(scaled_lr, panels),
        x="Batch size",
        y="",
    )
