"""Training and validation loss by epoch at the high learning rate."""

import pandas as pd
import plotnine as p9

from batchscape.report.figures.loss_curves import plot_loss_curves


def draw(curves: pd.DataFrame, high_learning_rate: float) -> p9.ggplot:
    return plot_loss_curves(curves, high_learning_rate)
