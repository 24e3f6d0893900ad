"""The finalists: the settings that the confirmation trains again."""

from typing import Any

import pandas as pd

from batchscape.config.confirmation import Finalist, Finalists
from batchscape.report.ranking import rank_settings


def choose_finalists(runs: pd.DataFrame, spec: dict[str, Any]) -> Finalists:
    """Return the settings with the lowest mean of the best validation loss, best first.

    Settings with a diverged run come last, so that one of them is a finalist only if too few others are left.

    Args:
        runs: The table `runs`.
        spec: The number of finalists, and the specification of each setting, as in `study.specs`.
    """
    ranked = rank_settings(runs).head(spec["count"])
    finalists = []
    for _, row in ranked.iterrows():
        run_spec = spec["shared"] | spec["settings"][row["setting"]]
        run_spec.setdefault("learning_rate", float(row["learning_rate"]))  # of a search
        finalists.append(Finalist(setting=row["setting"], diverged=bool(row["n_diverged"]), spec=run_spec))
    return Finalists(finalists=tuple(finalists))
