"""The finalists: the settings that the confirmation trains again."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from batchscape.config.confirmation import Finalist, Finalists
from batchscape.config.run import with_hyperparameters
from batchscape.report.ranking import rank_settings


def choose_finalists(
    runs: pd.DataFrame,
    spec: dict[str, Any],
    tuned: Mapping[int, Mapping[str, float | None]],
    measured: Mapping[str, Mapping[str, Any]],
) -> Finalists:
    """Return the settings with the lowest mean of the best validation loss, best first.

    Settings with a diverged run come last, so that one of them is a finalist only if too few others are left.

    Args:
        runs: The table `runs`.
        spec: The number of finalists, and the specification of each setting, as in `study.specs`.
        tuned: The hyperparameters that the search has found for each batch size.
        measured: The rest of the specification of each setting whose stages are measured, as JSON.
    """
    ranked = rank_settings(runs).head(spec["count"])
    finalists = []
    for _, row in ranked.iterrows():
        run_spec = spec["shared"] | spec["settings"][row["setting"]] | measured.get(row["setting"], {})
        if "learning_rate" not in run_spec:  # it is that of the search, and so may be others
            complete = with_hyperparameters({**run_spec, "seed": 0}, tuned[int(row["batch_size"])])
            run_spec = complete.model_dump(mode="json", exclude={"seed"})
        finalists.append(Finalist(setting=row["setting"], diverged=bool(row["n_diverged"]), spec=run_spec))
    return Finalists(finalists=tuple(finalists))
