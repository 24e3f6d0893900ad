"""Distribution of the norms of batch updates, ‖θ_{t+1} − θ_t‖₂, of a run."""

import numpy as np
import pandas as pd

from batchscape.io.run_directory import RunDirectory

PERCENTILES = np.arange(1, 100)


def percentiles(norms: np.ndarray) -> np.ndarray:
    """Return the 1st, 2nd, …, 99th percentile of the norms, (steps,), with linear interpolation, shape (99,).

    All are nan if any norm is not finite.
    """
    if not np.isfinite(norms).all():
        return np.full(len(PERCENTILES), np.nan)
    return np.percentile(norms, PERCENTILES)


def analyze(run: RunDirectory) -> pd.DataFrame:
    """Return one row for each percentile."""
    norms = run.update_norms()
    return pd.DataFrame({"updates": len(norms), "percentile": PERCENTILES, "update_norm": percentiles(norms)})
