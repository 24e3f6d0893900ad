"""Distance that the weights move between evaluations, by default in each epoch, ‖θ after epoch e − θ before it‖₂."""

import pandas as pd

from batchscape.io.run_directory import RunDirectory


def analyze(run: RunDirectory) -> pd.DataFrame:
    """Return one row for each evaluation, as recorded during training (not all of those weights are saved)."""
    return run.history(["epoch", "epoch_distance"])
