"""Training and validation loss by epoch in every arm except `high`, which has its own figure."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotnine as p9

from batchscape.report.figures.by_epoch import epochs_with_all_seeds, panel_rows, plot_by_epoch, subtitle
from batchscape.report.figures.loss_axis import LossAxis
from batchscape.report.figures.loss_curves import PANELS
from batchscape.report.measures import Measures


def draw(curves: pd.DataFrame, *, arms: Sequence[tuple[str, Sequence[str]]], measures: Mapping[str, Any]) -> p9.ggplot:
    """`arms` are names of arms with their settings; each arm is one row of panels."""
    shown = [(arm, curves[curves["setting"].isin(settings)]) for arm, settings in arms if arm != "high"]
    data = pd.concat(
        [
            panel_rows(epochs_with_all_seeds(rows), loss, f"{name}, {arm}")
            for arm, rows in shown
            for loss, name in PANELS.items()
        ],
        ignore_index=True,
    )
    every = pd.concat([rows for _, rows in shown]).drop_duplicates(["setting", "epoch"])
    axis = LossAxis.of(data["mean"], data["min"])
    plot = plot_by_epoch(data, curves["batch_size"], columns=len(PANELS), axis=axis)
    return plot + p9.labs(
        title="Loss by epoch, before and after LR scaling",
        subtitle=subtitle(every),
        x="Epoch",
        y=Measures.from_settings(measures).loss_title,
    )
