"""How far the weights move in each epoch: ‖θ after epoch e − θ before it‖₂."""

import pandas as pd

from batchscape.frames import read_frame
from batchscape.training.run_directory import RunDirectory


def analyse(run: RunDirectory) -> pd.DataFrame:
    """Return one row an epoch, from the record that training kept (the weights of every epoch are not kept)."""
    return read_frame(run.history_file)[["epoch", "epoch_distance"]]
