"""Training and validation loss by epoch at one learning rate, for the figures of the fixed and the high one."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import plotnine as p9

from batchscape.report.figures import style
from batchscape.report.figures.by_epoch import epochs_with_all_seeds, panel_rows, plot_by_epoch, subtitle
from batchscape.report.figures.loss_axis import LossAxis
from batchscape.report.measures import Measures
from batchscape.report.settings import at_learning_rate

PANELS = {"train_loss": "Training loss", "validation_loss": "Validation loss"}


def plot_loss_curves(curves: pd.DataFrame, learning_rate: float, measures: Mapping[str, Any]) -> p9.ggplot:
    """Return the plot of the table `curves`, one line per batch size."""
    at_rate = at_learning_rate(curves, learning_rate)
    rows = epochs_with_all_seeds(at_rate)
    data = pd.concat([panel_rows(rows, loss, name) for loss, name in PANELS.items()], ignore_index=True)
    return plot_by_epoch(data, curves["batch_size"], axis=LossAxis.of(data["mean"], data["min"])) + p9.labs(
        title=f"Loss by epoch at {style.learning_rate_label(learning_rate)}",
        subtitle=subtitle(at_rate),
        x="Epoch",
        y=Measures.from_settings(measures).loss_title,
    )
