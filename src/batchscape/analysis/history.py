"""History of a run: loss curves, distance from the initial weights and gradient noise by epoch."""

import pandas as pd

from batchscape.io.run_directory import RunDirectory

NOISE = ("gradient_norm", "noise_scale")


def analyze(run: RunDirectory) -> pd.DataFrame:
    """Return one row for each epoch, with the number of updates (`step`) and of examples seen by the end of it."""
    measures = [f"{side}_{name}" for side in ("train", "validation") for name in ("loss", *run.metrics())]
    history = run.history(["epoch", *measures, "distance", *NOISE])
    summary = run.summary()
    for name, per_epoch in (("examples", "training_examples"), ("step", "batches_per_epoch")):
        history.insert(1, name, history["epoch"] * summary[per_epoch])
    return history
