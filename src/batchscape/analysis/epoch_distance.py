"""How far the weights move in each epoch: ‖θ after epoch e − θ before it‖₂."""

import pandas as pd

from batchscape.io.run_directory import RunDirectory


def analyze(run: RunDirectory) -> pd.DataFrame:
    """Return one row an epoch, from the record that training kept (the weights of every epoch are not kept)."""
    return run.history(["epoch", "epoch_distance"])
