"""How far the minimiser lies from the initial weights, whole and by layer."""

import numpy as np
import pandas as pd

from batchscape.training.run_directory import RunDirectory
from batchscape.weights import Weights, distance_by_layer

WHOLE = "whole model"


def distances(initial: Weights, minimiser: Weights | None) -> dict[str, float]:
    """Return ‖θ_best − θ_init‖₂ of the whole model and of each layer, in the network's order.

    As in Chang & Pathak 2020 and Hoffer et al. 2017, over parameters only. All nan if there is no minimiser.
    """
    names = initial.layers.names
    if minimiser is None:
        return dict.fromkeys((WHOLE, *names), np.nan)
    by_layer = distance_by_layer(initial.vector, minimiser.vector, initial.layers)
    return {WHOLE: float(np.linalg.norm(by_layer)), **dict(zip(names, by_layer.tolist(), strict=True))}


def analyse(run: RunDirectory) -> pd.DataFrame:
    """Return one row a layer, the whole model first."""
    minimiser = run.weights("best") if run.summary()["best_epoch"] else None
    found = distances(run.weights("init"), minimiser)
    return pd.DataFrame({"layer": list(found), "distance": list(found.values())})
