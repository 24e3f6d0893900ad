"""Distance of the best weights from the initial weights, over all layers and by layer."""

import numpy as np
import pandas as pd

from batchscape.io.run_directory import RunDirectory
from batchscape.io.weights import Weights, distance_by_layer

ALL_LAYERS = "all layers"


def distances(initial: Weights, best: Weights) -> dict[str, float]:
    """Return ‖θ_best − θ_init‖₂ over all layers and for each layer, in the network's order.

    As in Chang & Pathak 2020 and Hoffer et al. 2017, over parameters only, without BatchNorm statistics.
    """
    by_layer = distance_by_layer(initial.vector, best.vector, initial.layers)
    return {
        ALL_LAYERS: float(np.linalg.norm(by_layer)),
        **dict(zip(initial.layers.names, by_layer.tolist(), strict=True)),
    }


def analyze(run: RunDirectory) -> pd.DataFrame:
    """Return one row for all layers, then one row for each layer."""
    by_layer = distances(run.weights("init"), run.checkpoint_weights("best"))
    return pd.DataFrame({"layer": list(by_layer), "distance": list(by_layer.values())})
