"""How far the weights move in each step: the distribution of ‖θ_{t+1} − θ_t‖₂ over a run's batch updates."""

import numpy as np
import pandas as pd

from batchscape.io.run_directory import RunDirectory

PERCENTILES = np.arange(1, 100)


def percentiles(norms: np.ndarray) -> np.ndarray:
    """Return the 1st, 2nd, …, 99th percentile, (99,), of the norms, (steps,); linear between order statistics.

    Any norm that is not finite makes all of them nan: a distribution with a hole has no percentiles.
    """
    if not np.isfinite(norms).all():
        return np.full(len(PERCENTILES), np.nan)
    return np.percentile(norms, PERCENTILES)


def analyze(run: RunDirectory) -> pd.DataFrame:
    """Return one row a percentile."""
    norms = run.update_norms()
    return pd.DataFrame({"updates": len(norms), "percentile": PERCENTILES, "update_norm": percentiles(norms)})
