"""Table `update_norms`: percentiles of the norms of batch updates, over seeds."""

import pandas as pd

from batchscape.report.settings import SETTING_COLUMNS
from batchscape.report.tables.over_seeds import over_seeds

PERCENTILES = {percentile: f"update_norm_p{percentile:02}" for percentile in (5, 25, 50, 75, 95)}


def tabulate(update_norms: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each setting: percentiles of the update norms of its runs, over seeds."""
    chosen = update_norms[update_norms["percentile"].isin(PERCENTILES)].replace({"percentile": PERCENTILES})
    run = ["run", *SETTING_COLUMNS, "seed", "status", "updates"]
    wide = chosen.pivot(index=run, columns="percentile", values="update_norm").reset_index()
    return over_seeds(wide, SETTING_COLUMNS, ["updates", *PERCENTILES.values()])
