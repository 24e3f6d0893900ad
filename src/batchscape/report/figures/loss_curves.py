"""Training and validation loss by epoch at one learning rate: what the figures of the fixed and the high arm share."""

import pandas as pd
import plotnine as p9

from batchscape.report.figures import style
from batchscape.report.figures.by_epoch import epochs_with_all_seeds, panel_rows, plot_by_epoch, subtitle
from batchscape.report.settings import at_learning_rate

PANELS = {"train_loss": "Training loss", "validation_loss": "Validation loss"}


def plot_loss_curves(curves: pd.DataFrame, learning_rate: float) -> p9.ggplot:
    """One line a batch size, from the table `curves`."""
    chosen = at_learning_rate(curves, learning_rate)
    rows = epochs_with_all_seeds(chosen)
    data = pd.concat([panel_rows(rows, loss, name) for loss, name in PANELS.items()], ignore_index=True)
    return plot_by_epoch(data, curves["batch_size"]) + p9.labs(
        title=f"Loss by epoch at {style.learning_rate_label(learning_rate)}",
        subtitle=subtitle(chosen),
        x="Epoch",
        y="Cross-entropy (nats)",
    )
