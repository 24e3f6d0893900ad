"""History of a run: loss curves, distance from the initial weights, gradient noise and times at each evaluation."""

import pandas as pd

from batchscape.io.run_directory import RunDirectory

TIMES = ("train_seconds", "train_cpu_seconds")
NOISE = ("gradient_norm", "noise_scale")


def analyze(run: RunDirectory) -> pd.DataFrame:
    """Return one row for each evaluation, with the epochs, steps and examples of the training until then."""
    measures = [f"{side}_{name}" for side in ("train", "validation") for name in ("loss", *run.metrics())]
    return run.history(["epoch", "step", "examples", *TIMES, *measures, "distance", *NOISE])
