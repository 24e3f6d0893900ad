"""The answers of an analysis for many runs, one below the other."""

from collections.abc import Callable, Iterable
from pathlib import Path

import pandas as pd

from batchscape.training.run_directory import RunDirectory


def collect(directories: Iterable[Path], analyse: Callable[[RunDirectory], pd.DataFrame]) -> pd.DataFrame:
    """Return the rows that `analyse` gives for each run, led by what the run is and how it ended.

    The leading columns are run, batch_size, learning_rate, seed and status (converged, diverged or max_epochs).
    """
    frames = []
    for directory in directories:
        run = RunDirectory(directory)
        summary = run.summary()
        rows = analyse(run)
        lead = {
            "run": directory.name,
            **{key: summary["spec"][key] for key in ("batch_size", "learning_rate", "seed")},
            "status": summary["status"],
        }
        for position, (column, value) in enumerate(lead.items()):
            rows.insert(position, column, value)
        frames.append(rows)
    frame = pd.concat(frames, ignore_index=True)
    return frame.sort_values(["batch_size", "learning_rate", "seed"], kind="stable", ignore_index=True)
