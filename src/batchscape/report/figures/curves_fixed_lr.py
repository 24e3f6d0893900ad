"""Training and validation loss by epoch at the fixed learning rate."""

import pandas as pd
import plotnine as p9

from batchscape.report.figures.loss_curves import plot_loss_curves


def draw(curves: pd.DataFrame, fixed_learning_rate: float) -> p9.ggplot:
    return plot_loss_curves(curves, fixed_learning_rate)
