"""Table `trials`: every trial of the search, over its seeds."""

import numpy as np
import pandas as pd

from batchscape.config.tuning import names_of

# Columns that the runs of a trial share, besides its hyperparameters.
KEYS = ["batch_size", "trial", "stage"]


def tabulate(trial_runs: pd.DataFrame, *, quantile: float | None) -> pd.DataFrame:
    """Return one row for each trial, by batch size and in order.

    `validation_loss` is what the search minimizes: the quantile of the lowest validation losses of the seeds, or their
    mean if `quantile` is None; `inf` if a run diverged. That of a pruned trial is a bound, from the runs that it had.
    """
    others = names_of(dict.fromkeys(trial_runs.columns))
    rows = []
    for keys, runs in trial_runs.groupby(KEYS, sort=False):
        losses = runs["validation_loss"].to_numpy()
        finite = losses[np.isfinite(losses)]
        status = runs["status"]
        loss = np.inf
        if len(finite) == len(losses):
            loss = finite.mean() if quantile is None else np.quantile(finite, quantile)
        rows.append(
            {
                **dict(zip(KEYS, keys, strict=True)),
                **{name: runs[name].iloc[0] for name in ("learning_rate", *others)},
                "validation_loss": float(loss),
                "validation_loss_sd": finite.std(ddof=1) if len(finite) > 1 else np.nan,
                "best_epoch": runs["best_epoch"].mean(),
                "n_seeds": int((status != "diverged").sum()),
                "n_diverged": int((status == "diverged").sum()),
                "n_pruned": int((status == "pruned").sum()),
                "trainings": runs["trainings"].sum(),
                "cpu_seconds": runs["cpu_seconds"].sum(),
                "is_best": int(runs["is_best"].iloc[0]),
            }
        )
    return pd.DataFrame(rows)
