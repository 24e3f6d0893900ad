"""Summary of a run: status, best losses and cost."""

import numpy as np
import pandas as pd

from batchscape.io.run_directory import RunDirectory

FROM_SUMMARY = ("epochs", "best_epoch", "min_train_loss", "best_validation_loss")


def analyze(run: RunDirectory) -> pd.DataFrame:
    """Return one row; a run without a finite validation loss has nan where there is no best epoch."""
    summary, metrics = run.summary(), run.metrics()
    values = {key: _number(summary[key]) for key in FROM_SUMMARY}
    values |= {f"validation_{name}_at_best": _number(summary["validation_at_best"].get(name)) for name in metrics}
    if summary["test_examples"]:
        values |= {f"test_{name}": _number(summary["test_at_best"].get(name)) for name in ("loss", *metrics)}
    for side, key in (("validation", "average_validation"), ("test", "average_test")):
        values |= {f"average_{side}_{name}": _number(value) for name, value in summary[key].items()}
    history = run.history(["epoch", "train_seconds", "train_cpu_seconds"])
    times = epoch_times(history, summary["best_epoch"])
    environment = summary["environment"]
    devices = {"device": environment["device"], "devices": environment["devices"] * environment["nodes"]}
    is_until_best = history["epoch"] <= values["best_epoch"]
    best_evaluation = is_until_best.sum() if is_until_best.any() else np.nan
    return pd.DataFrame([{**values, "best_evaluation": best_evaluation, **times, **devices}])


def _number(value: float | None) -> float:
    return np.nan if value is None else value


def epoch_times(history: pd.DataFrame, best_epoch: int | None) -> dict[str, float]:
    """Return the median training time of an epoch and the training time up to the best epoch, in seconds.

    Each is given as wall time and as CPU time of all processes, without validation. The median over the evaluation
    intervals is robust against the warm-up of the first one and against short loads of the machine.
    """
    epochs = history["epoch"].diff().fillna(history["epoch"])
    to_best = history[history["epoch"] <= (best_epoch or 0)]
    result = {}
    for name, column in (("seconds", "train_seconds"), ("cpu_seconds", "train_cpu_seconds")):
        result[f"epoch_{name}"] = float((history[column] / epochs).median())
        result[f"{name}_to_best"] = float(to_best[column].sum()) if best_epoch else np.nan
    return result
