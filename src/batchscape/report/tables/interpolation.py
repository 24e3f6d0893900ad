"""Table `interpolation`: loss and accuracy on the line through the weights of two settings, over seeds."""

import pandas as pd

from batchscape.report.tables.over_seeds import over_seeds


def tabulate(interpolation: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each pair of settings and α."""
    values = ["train_loss", "train_accuracy", "validation_loss", "validation_accuracy"]
    keys = ["first", "second", "checkpoint", "batch_norm", "examples", "validation_examples", "alpha"]
    return over_seeds(interpolation, keys, values)
