"""Training and validation loss by epoch at the fixed learning rate."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import plotnine as p9

from batchscape.report.figures.loss_curves import plot_loss_curves


def draw(curves: pd.DataFrame, *, fixed_learning_rate: float, measures: Mapping[str, Any]) -> p9.ggplot:
    return plot_loss_curves(curves, fixed_learning_rate, measures)
