"""What training recorded of each epoch: the loss curves, the way from the initial weights, and the gradient noise."""

import pandas as pd

from batchscape.io.run_directory import RunDirectory

COLUMNS = [
    "epoch",
    "train_loss",
    "train_accuracy",
    "validation_loss",
    "validation_accuracy",
    "distance",
    "gradient_norm",
    "noise_scale",
]


def analyze(run: RunDirectory) -> pd.DataFrame:
    """Return one row an epoch, with the number of updates (`step`) and of examples that training has met by its end."""
    history = run.history(COLUMNS)
    summary = run.summary()
    for name, of_epoch in (("examples", "training_examples"), ("step", "batches_per_epoch")):
        history.insert(1, name, history["epoch"] * summary[of_epoch])
    return history
