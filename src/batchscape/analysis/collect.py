"""Collect the rows of an analysis over runs."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pandas as pd

from batchscape.io.run_directory import RunDirectory


def collect(directories: Iterable[Path], analyze: Callable[[RunDirectory], pd.DataFrame]) -> pd.DataFrame:
    """Return the rows of `analyze` for each run, with the columns that identify the run.

    The first columns are run, setting (the run without its seed), batch_size, learning_rate, seed and status
    (converged, completed, budget_spent or diverged).
    """
    frames = []
    for directory in directories:
        run = RunDirectory(directory)
        summary = run.summary()
        columns = {
            "run": directory.name,
            "setting": _setting_and_seed(directory)[0],
            **{key: summary["spec"][key] for key in ("batch_size", "learning_rate", "seed")},
            "status": summary["status"],
        }
        frames.append(_prepend_columns(columns, analyze(run)))
    frame = pd.concat(frames, ignore_index=True)
    return frame.sort_values(["batch_size", "learning_rate", "setting", "seed"], kind="stable", ignore_index=True)


def collect_pair(
    first: Path, second: Path, analyze: Callable[[RunDirectory, RunDirectory], pd.DataFrame]
) -> pd.DataFrame:
    """Return the rows of `analyze` for two runs of the same seed, with the columns that identify the runs.

    The first columns are first and second (settings such as `bs32-lr0.01`), seed, and the worse status of the two.
    """
    runs = RunDirectory(first), RunDirectory(second)
    (first_setting, seed), (second_setting, _) = map(_setting_and_seed, (first, second))
    statuses = {run.summary()["status"] for run in runs}
    status = next((status for status in ("diverged", "budget_spent", "completed") if status in statuses), "converged")
    columns = {"first": first_setting, "second": second_setting, "seed": int(seed), "status": status}
    return _prepend_columns(columns, analyze(*runs))


def _setting_and_seed(directory: Path) -> tuple[str, str]:
    setting, _, seed = directory.name.rpartition("-seed")
    return setting, seed


def _prepend_columns(columns: Mapping[str, object], rows: pd.DataFrame) -> pd.DataFrame:
    for position, (column, value) in enumerate(columns.items()):
        rows.insert(position, column, value)
    return rows
