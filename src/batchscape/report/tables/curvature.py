"""Table `curvature`: curvature during training by setting, over seeds."""

import pandas as pd

from batchscape.report.settings import SETTING_COLUMNS
from batchscape.report.tables.over_seeds import over_seeds

QUANTITIES = (
    "epoch",
    "step",
    "step_learning_rate",
    "eigenvalue_times_rate",
    "batch_sharpness_times_rate",
    "edge",
    "preconditioned_times_rate",
    "preconditioned_edge",
    "loss",
    "hessian_eigenvalue",
    "batch_sharpness",
    "batch_sharpness_se",
    "preconditioned_eigenvalue",
    "gradient_norm",
    "weight_norm",
)


def tabulate(curvature: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each setting and checkpoint."""
    keys = [*SETTING_COLUMNS, "checkpoint", "batch_norm", "examples", "not_computed"]
    return over_seeds(curvature, keys, QUANTITIES)
