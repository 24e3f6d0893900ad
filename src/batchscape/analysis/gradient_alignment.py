"""How far the gradients of examples agree: how much of the gradients of single examples survives in their mean."""

import numpy as np
import pandas as pd

from batchscape.analysis.surfaces import evaluate_at_checkpoints
from batchscape.config.gradient_alignment import GradientAlignmentConfig as Config
from batchscape.curvature.loss_surface import LossSurface
from batchscape.data.prepared import PreparedData
from batchscape.io.run_directory import RunDirectory
from batchscape.runtime.progress import map_with_progress


def mean_gradient_norms(surface: LossSurface, weights: np.ndarray, batches: np.ndarray) -> pd.DataFrame:
    """Return the mean norm of the mean gradient of B examples, for B = 1, 2, 4, … up to the size of the batches.

    `batches`, (m, size), are indices of examples; the size is a power of two. The two halves of the examples behind a
    gradient are the examples behind two gradients of half the B, so that `gradient_norm` cannot grow with B. `bound` is
    the mean norm of single examples' gradients, which by the triangle inequality no other can exceed:
    ‖(1/B)·Σ g_i‖ ≤ (1/B)·Σ ‖g_i‖ (Chang & Pathak 2020). `alignment`, `gradient_norm`/`bound`, would be 1 if all
    gradients pointed one way, and about 1/√B if they had nothing in common. `gradients` is their number.
    """

    def descend(batch: np.ndarray) -> tuple[np.ndarray, list[list[float]]]:
        """Return the sum of the gradients of a batch, and for each B the norms of the mean gradients of its parts."""
        if len(batch) == 1:
            total = surface.example_gradient(weights, int(batch[0]))
            return total, [[float(np.linalg.norm(total))]]
        (left, left_norms), (right, right_norms) = map(descend, np.split(batch, 2))
        total = left + right
        parts = [a + b for a, b in zip(left_norms, right_norms, strict=True)]
        return total, [*parts, [float(np.linalg.norm(total)) / len(batch)]]

    what = f"the gradients of {batches.shape[1]} examples"
    norms = [found for _, found in map_with_progress(descend, batches, len(batches), what)]
    by_size = [np.concatenate(found) for found in zip(*norms, strict=True)]
    rows = pd.DataFrame(
        {
            "gradient_batch": [2**power for power in range(len(by_size))],
            "gradients": [len(found) for found in by_size],
            "gradient_norm": [found.mean() for found in by_size],
        }
    )
    bound = rows["gradient_norm"].iloc[0]
    return rows.assign(bound=bound, alignment=rows["gradient_norm"] / bound)


def draw_batches(count: int, size: int, examples: int | None, seed: int) -> np.ndarray:
    """Return whole batches of different examples out of `count`, (m, size), at most `examples` of them in all.

    If there are fewer than `size`, the batches are of the largest power of two that there are.
    """
    usable = min(count, examples or count)
    size = min(size, 2 ** (usable.bit_length() - 1))
    order = np.random.default_rng(seed).permutation(count)
    return order[: usable // size * size].reshape(-1, size)


def analyze(run: RunDirectory, data: PreparedData, config: Config) -> pd.DataFrame:
    """Return one row for each checkpoint and number of examples; nan where the run did not come so far."""
    batches = draw_batches(len(data.train_labels), config.max_batch_size, config.max_examples, config.seed)
    return evaluate_at_checkpoints(
        run, data, config.checkpoints, lambda surface, weights: mean_gradient_norms(surface, weights, batches)
    )
