"""Linear interpolation between the weights of two runs."""

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


def lerp_weights(first: np.ndarray, second: np.ndarray, alpha: float) -> np.ndarray:
    """Return θ(α) = (1 − α)·θ_first + α·θ_second (Goodfellow et al. 2015, section 3).

    Args:
        first: θ_first, shape (p,).
        second: θ_second, shape (p,).
        alpha: α; 0 and 1 give the first and second weights exactly, bit for bit.

    Returns:
        θ(α), shape (p,), float64.
    """
    first, second = first.astype(np.float64), second.astype(np.float64)
    return (1 - alpha) * first + alpha * second


def _lerp_buffer(first: np.ndarray, second: np.ndarray, alpha: float) -> np.ndarray:
    """Return the same of a buffer; what is equal in both stays, such as the infinities of a mask."""
    with np.errstate(invalid="ignore"):
        return np.where(first == second, first, lerp_weights(first, second, alpha))


def interpolate(
    training: LossSurface, validation: LossSurface, first: Weights, second: Weights, config: Config
) -> pd.DataFrame:
    """Evaluate training and validation loss on the line through two weights.

    BatchNorm statistics are re-estimated on the training set at each point, interpolated like the weights, or fixed at
    those of the first weights, as `config.batch_norm` says. Other floating-point buffers, such as running statistics of
    other layers, are interpolated unless they are fixed. Beyond the two weights, buffers are those of the nearer ones.
    Both surfaces use the same buffers.

    Args:
        training: The loss over the training examples; its BatchNorm statistics are modified.
        validation: The loss over the validation examples; its BatchNorm statistics are modified.
        first: The weights at α = 0.
        second: The weights at α = 1.
        config: Section `interpolation` of the config.

    Returns:
        One row for each α, with columns alpha, train_loss and train_<metric> for each metric of the task, the same for
        validation, batch_norm, examples and validation_examples (the numbers of examples).
    """
    training.batch_norm_statistics = validation.batch_norm_statistics = first.buffers
    moved = [
        name
        for name, buffer in first.buffers.items()
        if name in second.buffers and np.issubdtype(buffer.dtype, np.floating)
    ]

    def evaluate(alpha: float) -> Mapping[str, float]:
        weights = lerp_weights(first.vector, second.vector, alpha)
        if config.batch_norm != "fixed":
            place = min(max(alpha, 0.0), 1.0)  # beyond a run a variance could become negative
            buffers = {name: _lerp_buffer(first.buffers[name], second.buffers[name], place) for name in moved}
            training.batch_norm_statistics = validation.batch_norm_statistics = buffers
        if training.has_batch_norm and config.batch_norm == "re-estimate":
            training.estimate_batch_norm_statistics(weights)
            validation.batch_norm_statistics = training.batch_norm_statistics
        return {
            "alpha": alpha,
            **training.value(weights).columns("train_"),
            **validation.value(weights, "validation").columns("validation_"),
        }

    # Rounded, so that α is exactly 0 and 1 at the weights of the runs.
    alphas = np.linspace(*config.alpha_range, config.points).round(12).tolist()
    num_examples = len(training) + len(validation)
    rows = map_with_progress(evaluate, alphas, len(alphas), f"the loss over {num_examples} examples")
    return pd.DataFrame(rows).assign(
        batch_norm=config.batch_norm if training.has_batch_norm else "none",
        examples=len(training),
        validation_examples=len(validation),
    )


def analyze(first: RunDirectory, second: RunDirectory, data: PreparedData, config: Config) -> pd.DataFrame:
    """Return the rows of `interpolate` for two runs; nan if one of them did not reach the checkpoint."""
    rows = interpolate(
        training_surface(first, data),
        validation_surface(first, data),
        first.checkpoint_weights(config.checkpoint),
        second.checkpoint_weights(config.checkpoint),
        config,
    )
    rows.insert(0, "checkpoint", RunDirectory.checkpoint_name(config.checkpoint))
    return rows
