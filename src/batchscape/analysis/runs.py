"""What became of each run: how it ended, its least losses, and what it cost."""

import numpy as np
import pandas as pd

from batchscape.io.run_directory import RunDirectory

FROM_SUMMARY = (
    "epochs",
    "best_epoch",
    "min_train_loss",
    "best_validation_loss",
    "validation_accuracy_at_best",
)


def analyze(run: RunDirectory) -> pd.DataFrame:
    """Return one row; a run without any finite validation loss has nan for what it never reached."""
    summary = run.summary()
    values = {key: np.nan if summary[key] is None else summary[key] for key in FROM_SUMMARY}
    measured = times(run.history(["epoch", "train_seconds", "train_cpu_seconds"]), summary["best_epoch"])
    where = summary["environment"]
    trained_on = {"device": where["device"], "devices": where["devices"] * where["nodes"]}
    return pd.DataFrame([{**values, **measured, **trained_on}])


def times(history: pd.DataFrame, best_epoch: int | None) -> dict[str, float]:
    """Return the median training time of an epoch and the training time up to the best epoch, in seconds.

    Each is given as wall time and as CPU time of all processes. The median is not moved by the first epoch, which
    warms up, nor by a moment in which the machine did something else. Validation is not in it.
    """
    to_best = history[history["epoch"] <= (best_epoch or 0)]
    result = {}
    for name, column in (("seconds", "train_seconds"), ("cpu_seconds", "train_cpu_seconds")):
        result[f"epoch_{name}"] = float(history[column].median())
        result[f"{name}_to_best"] = float(to_best[column].sum()) if best_epoch else np.nan
    return result
