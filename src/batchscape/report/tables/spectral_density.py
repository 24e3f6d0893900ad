"""Table `spectral_density`: trace of the Hessian by layer, and the range of its spectrum, by setting, over seeds."""

import numpy as np
import pandas as pd

from batchscape.report.settings import SETTING_COLUMNS
from batchscape.report.tables.over_seeds import over_seeds

# Relative to the largest magnitude: those closer to 0 may be negative by rounding, or be 0.
NEGATIVE = -0.01
QUANTITIES = ("trace", "trace_se", "smallest_eigenvalue", "largest_eigenvalue", "negative_share")


def tabulate(spectral_density: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each setting, checkpoint and layer, and one for all layers.

    Of each run these are the mean of the trace over the probes with its standard error, and for all layers the smallest
    and the largest node of the quadrature and the mean weight of clearly negative nodes, which is the share of such
    eigenvalues: below -1 % of the largest magnitude of a node of the run at this checkpoint.
    """
    keys = [*SETTING_COLUMNS, "checkpoint", "layer", "batch_norm", "examples", "not_computed"]
    nodes = spectral_density["eigenvalue"]
    largest = nodes.abs().groupby([spectral_density["run"], spectral_density["checkpoint"]]).transform("max")
    is_negative = nodes < NEGATIVE * largest
    runs = spectral_density.assign(negative=spectral_density["weight"].where(is_negative, 0.0))
    runs = runs.groupby([*keys, "run", "status"], sort=False)
    traces, probes = runs["trace"], runs["probe"].nunique()
    eigenvalues = runs["eigenvalue"]
    rows = pd.DataFrame(
        {
            "trace": traces.mean(),
            "trace_se": traces.std() / np.sqrt(traces.count()),
            "smallest_eigenvalue": eigenvalues.min(),
            "largest_eigenvalue": eigenvalues.max(),
            "negative_share": (runs["negative"].sum() / probes).where(eigenvalues.count() > 0),
        }
    )
    return over_seeds(rows.reset_index(), keys, QUANTITIES)
