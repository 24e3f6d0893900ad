"""Table `sharpness`: sharpness by setting, over seeds."""

import numpy as np
import pandas as pd

from batchscape.report.settings import SETTING_COLUMNS
from batchscape.report.tables.over_seeds import over_seeds


def tabulate(sharpness: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each setting, checkpoint, measure and radius.

    `n_not_finite` counts the runs that did not diverge and yet have no finite value, because the loss around their
    weights overflows. Runs whose value was not computed are not counted; `not_computed` says why.
    """
    keys = [*SETTING_COLUMNS, "checkpoint", "measure", "radius", "batch_norm", "examples", "not_computed"]
    table = over_seeds(sharpness, keys, ["value", "loss", "evaluations", "iterations", "on_bounds"])
    not_finite = (
        ~np.isfinite(sharpness["value"]) & sharpness["status"].ne("diverged") & sharpness["not_computed"].eq("none")
    )
    table["n_not_finite"] = not_finite.groupby([sharpness[key] for key in keys]).sum().to_numpy()
    return table
