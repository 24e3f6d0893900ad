"""How far the minimizer lies from the initial weights, whole and by layer."""

import numpy as np
import pandas as pd

from batchscape.io.run_directory import RunDirectory
from batchscape.io.weights import Weights, distance_by_layer

ALL_LAYERS = "all layers"


def distances(initial: Weights, minimizer: Weights) -> dict[str, float]:
    """Return ‖θ_best − θ_init‖₂ of the whole model and of each layer, in the network's order.

    As in Chang & Pathak 2020 and Hoffer et al. 2017, over parameters only.
    """
    by_layer = distance_by_layer(initial.vector, minimizer.vector, initial.layers)
    return {
        ALL_LAYERS: float(np.linalg.norm(by_layer)),
        **dict(zip(initial.layers.names, by_layer.tolist(), strict=True)),
    }


def analyze(run: RunDirectory) -> pd.DataFrame:
    """Return one row a layer, the whole model first."""
    found = distances(run.weights("init"), run.checkpoint_weights("best"))
    return pd.DataFrame({"layer": list(found), "distance": list(found.values())})
