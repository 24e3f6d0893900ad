"""Distance that the weights move in each epoch, ‖θ after epoch e − θ before it‖₂."""

import pandas as pd

from batchscape.io.run_directory import RunDirectory


def analyze(run: RunDirectory) -> pd.DataFrame:
    """Return one row for each epoch, as recorded during training (the weights of each epoch are not saved)."""
    return run.history(["epoch", "epoch_distance"])
