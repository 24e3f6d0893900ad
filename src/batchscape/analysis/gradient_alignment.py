"""Gradient alignment: how much of the gradients of single examples remains in their mean."""

import numpy as np
import pandas as pd

from batchscape.analysis.surfaces import evaluate_at_checkpoints
from batchscape.config.gradient_alignment import GradientAlignmentConfig as Config
from batchscape.curvature.loss_surface import LossSurface
from batchscape.data.prepared import PreparedData
from batchscape.io.run_directory import RunDirectory
from batchscape.runtime.progress import map_with_progress

# What the gradients of examples that are summed at once may take.
GRADIENT_BYTES = 128 << 20


def measure_alignment(surface: LossSurface, weights: np.ndarray, batches: np.ndarray) -> pd.DataFrame:
    """Measure the norm of the mean gradient of B examples, for B = 1, 2, 4, … up to the size of the batches.

    The norm is bounded by the mean norm of the gradients of single examples, ‖(1/B)·Σ g_i‖ ≤ (1/B)·Σ ‖g_i‖ (Chang &
    Pathak 2020). Their ratio, the alignment, is 1 if all gradients have the same direction, and about 1/√B if they are
    independent. Each batch is split into halves recursively, so that the mean norm cannot increase with B. If examples
    have weights in the loss, all means are over these, and so are those over the gradients of B examples.

    Args:
        surface: The loss surface.
        weights: The weights, shape (p,).
        batches: Indices of examples, shape (m, size); the size is a power of two.

    Returns:
        One row for each B, with columns gradient_batch (B), gradients (number of gradients that are averaged),
        gradient_norm (mean norm of the mean gradient of B examples, unit of the loss per unit of weight), bound and
        alignment.
    """

    at_once = max(1, GRADIENT_BYTES // (len(weights) * np.dtype(np.float64).itemsize))
    relative_weights = None
    if surface.example_weights is not None:
        relative_weights = surface.example_weights / surface.example_weights[batches].mean()

    def sum_gradients(batch: np.ndarray) -> tuple[np.ndarray, list[list[float]]]:
        """Return the sum of the gradients of a batch, and for each B the norms of the mean gradients of its parts."""
        if len(batch) > at_once:
            (left, left_norms), (right, right_norms) = map(sum_gradients, np.split(batch, 2))
            total = left + right
            norms = [a + b for a, b in zip(left_norms, right_norms, strict=True)]
            return total, [*norms, [float(np.linalg.norm(total)) / len(batch)]]
        sums = surface.example_gradients(weights, batch)
        if relative_weights is not None:
            sums = sums * relative_weights[batch][:, None]
        norms = []
        while True:
            norms.append([float(np.linalg.norm(total)) / (len(batch) // len(sums)) for total in sums])
            if len(sums) == 1:
                return sums[0], norms
            sums = sums[0::2] + sums[1::2]

    description = f"the gradients of {batches.shape[1]} examples"
    norms_by_batch = [norms for _, norms in map_with_progress(sum_gradients, batches, len(batches), description)]
    norms_by_size = [np.concatenate(norms) for norms in zip(*norms_by_batch, strict=True)]
    rows = pd.DataFrame(
        {
            "gradient_batch": [2**power for power in range(len(norms_by_size))],
            "gradients": [len(norms) for norms in norms_by_size],
            "gradient_norm": [norms.mean() for norms in norms_by_size],
        }
    )
    bound = rows["gradient_norm"].iloc[0]
    return rows.assign(bound=bound, alignment=rows["gradient_norm"] / bound)


def draw_batches(num_examples: int, batch_size: int, seed: int) -> np.ndarray:
    """Draw complete batches of examples without replacement.

    Args:
        num_examples: Number of examples to draw from.
        batch_size: Size of a batch; reduced to a power of two if there are fewer examples.
        seed: Seed of the order.

    Returns:
        Indices of examples, shape (m, size).
    """
    size = min(batch_size, 2 ** (num_examples.bit_length() - 1))
    order = np.random.default_rng(seed).permutation(num_examples)
    return order[: num_examples // size * size].reshape(-1, size)


def analyze(run: RunDirectory, data: PreparedData, config: Config) -> pd.DataFrame:
    """Return the rows of `measure_alignment` for each checkpoint; nan if the run did not reach it."""
    batches = draw_batches(len(data.train), config.max_batch_size, config.seed)
    return evaluate_at_checkpoints(
        run, data, config.checkpoints, lambda surface, weights: measure_alignment(surface, weights, batches)
    )
