"""The loss curves: training and validation loss and accuracy of each epoch."""

import pandas as pd

from batchscape.frames import read_frame
from batchscape.training.run_directory import RunDirectory

COLUMNS = ["epoch", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy"]


def analyse(run: RunDirectory) -> pd.DataFrame:
    return read_frame(run.history_file)[COLUMNS]
