"""Loss and accuracy on the line through the weights of two runs."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from batchscape.analysis.surfaces import training_surface, validation_surface
from batchscape.config.interpolation import InterpolationConfig as Config
from batchscape.curvature.loss_surface import LossSurface
from batchscape.data.prepared import PreparedData
from batchscape.io.run_directory import RunDirectory
from batchscape.io.weights import Weights
from batchscape.runtime.progress import map_with_progress


def between(first: np.ndarray, second: np.ndarray, alpha: float) -> np.ndarray:
    """Return θ(α) = (1 − α)·θ_first + α·θ_second, float64 (Goodfellow et al. 2015, section 3).

    At α = 0 and α = 1 it is the one and the other to the last bit.
    """
    first, second = first.astype(np.float64), second.astype(np.float64)
    return (1 - alpha) * first + alpha * second


def interpolate(
    training: LossSurface, validation: LossSurface, first: Weights, second: Weights, config: Config
) -> pd.DataFrame:
    """Return one row for each α: `alpha`, and loss and accuracy of both surfaces.

    BatchNorm statistics, on both surfaces, are `re-estimate`d on the training surface at each α, `interpolate`d like
    the weights, or `fixed` at those of the first weights.
    """
    training.statistics = validation.statistics = first.buffers

    def at(alpha: float) -> Mapping[str, float]:
        weights = between(first.vector, second.vector, alpha)
        if training.has_batch_norm and config.batch_norm == "re-estimate":
            training.estimate_statistics(weights)
        elif training.has_batch_norm and config.batch_norm == "interpolate":
            training.statistics = {
                name: between(first.buffers[name], second.buffers[name], alpha) for name in training.statistics
            }
        validation.statistics = training.statistics
        train, held_out = training.value(weights), validation.value(weights)
        return {
            "alpha": alpha,
            "train_loss": train.loss,
            "train_accuracy": train.accuracy,
            "validation_loss": held_out.loss,
            "validation_accuracy": held_out.accuracy,
        }

    # Rounded, so that the zero and the one of a decimal grid are the runs' own weights.
    alphas = np.linspace(*config.alpha_range, config.points).round(12).tolist()
    images = len(training) + len(validation)
    rows = map_with_progress(at, alphas, len(alphas), f"the loss over {images} images")
    return pd.DataFrame(rows).assign(batch_norm=config.batch_norm if training.has_batch_norm else "none")


def analyze(first: RunDirectory, second: RunDirectory, data: PreparedData, config: Config) -> pd.DataFrame:
    """Return one row for each α of the line through the weights of two runs; nan if one did not come so far."""
    weights = [run.checkpoint_weights(config.checkpoint) for run in (first, second)]
    rows = interpolate(training_surface(first, data), validation_surface(first, data), *weights, config)
    rows.insert(0, "checkpoint", RunDirectory.checkpoint_name(config.checkpoint))
    return rows
