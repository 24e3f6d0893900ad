"""Table `interpolation`: loss and metrics on the line through the weights of two settings, over seeds."""

from collections.abc import Sequence

import pandas as pd

from batchscape.report.tables.over_seeds import over_seeds


def tabulate(interpolation: pd.DataFrame, *, metrics: Sequence[str]) -> pd.DataFrame:
    """Return one row for each pair of settings and α."""
    values = [f"{side}_{name}" for side in ("train", "validation") for name in ("loss", *metrics)]
    keys = ["first", "second", "checkpoint", "batch_norm", "examples", "validation_examples", "alpha"]
    return over_seeds(interpolation, keys, values)
