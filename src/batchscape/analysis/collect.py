"""The answers of an analysis for many runs, one below the other."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pandas as pd

from batchscape.io.run_directory import RunDirectory


def collect(directories: Iterable[Path], analyze: Callable[[RunDirectory], pd.DataFrame]) -> pd.DataFrame:
    """Return the rows that `analyze` gives for each run, led by what the run is and how it ended.

    The leading columns are run, setting (the run without its seed), batch_size, learning_rate, seed and status
    (converged, diverged or max_epochs).
    """
    frames = []
    for directory in directories:
        run = RunDirectory(directory)
        summary = run.summary()
        lead = {
            "run": directory.name,
            "setting": _setting_and_seed(directory)[0],
            **{key: summary["spec"][key] for key in ("batch_size", "learning_rate", "seed")},
            "status": summary["status"],
        }
        frames.append(_led_by(lead, analyze(run)))
    frame = pd.concat(frames, ignore_index=True)
    return frame.sort_values(["batch_size", "learning_rate", "setting", "seed"], kind="stable", ignore_index=True)


def collect_pair(
    first: Path, second: Path, analyze: Callable[[RunDirectory, RunDirectory], pd.DataFrame]
) -> pd.DataFrame:
    """Return the rows that `analyze` gives for two runs of one seed, led by what they are and how they ended.

    The leading columns are first and second (`bs32-lr0.01`), seed, and status: the worse of both.
    """
    runs = RunDirectory(first), RunDirectory(second)
    (one, seed), (other, _) = map(_setting_and_seed, (first, second))
    statuses = {run.summary()["status"] for run in runs}
    status = next((status for status in ("diverged", "max_epochs") if status in statuses), "converged")
    lead = {"first": one, "second": other, "seed": int(seed), "status": status}
    return _led_by(lead, analyze(*runs))


def _setting_and_seed(directory: Path) -> tuple[str, str]:
    setting, _, seed = directory.name.rpartition("-seed")
    return setting, seed


def _led_by(lead: Mapping[str, object], rows: pd.DataFrame) -> pd.DataFrame:
    for position, (column, value) in enumerate(lead.items()):
        rows.insert(position, column, value)
    return rows
