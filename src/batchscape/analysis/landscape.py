"""Training loss on a plane of two random directions around the weights of a run."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from batchscape.analysis.surfaces import load_batch_norm_statistics, training_surface
from batchscape.config.landscape import LandscapeConfig as Config
from batchscape.curvature.loss_surface import LossSurface
from batchscape.data.prepared import PreparedData
from batchscape.io.run_directory import RunDirectory
from batchscape.runtime.progress import map_with_progress


def random_directions(num_parameters: int, seed: int) -> np.ndarray:
    """Return two random directions d ~ N(0, I), shape (2, p), float64.

    They depend on p and the seed alone, so that all runs of a study share them.
    """
    return np.random.default_rng(seed).standard_normal((2, num_parameters))


def normalize_filters(direction: np.ndarray, weights: np.ndarray, shapes: Mapping[str, tuple[int, ...]]) -> np.ndarray:
    """Scale each filter of a direction to the norm of the filter of the weights (Li et al. 2018, section 4).

    A filter is an index of a parameter's first dimension: a filter of a convolution, or the weights of one neuron of a
    dense layer. Filter d_j becomes d_j·‖θ_j‖/(‖d_j‖ + 1e-10); parameters with fewer than two dimensions (biases,
    BatchNorm) become 0.

    Args:
        direction: The direction d, shape (p,).
        weights: The weights θ, shape (p,).
        shapes: Shape of each parameter, in the order of the vectors.

    Returns:
        The scaled direction, shape (p,), float64.
    """
    parts, start = [], 0
    for shape in shapes.values():
        end = start + int(np.prod(shape))
        if len(shape) > 1:
            filters = direction[start:end].reshape(shape[0], -1)
            norms = np.linalg.norm(weights[start:end].reshape(shape[0], -1).astype(np.float64), axis=1)
            parts.append((filters * (norms / (np.linalg.norm(filters, axis=1) + 1e-10))[:, None]).ravel())
        else:
            parts.append(np.zeros(end - start))
        start = end
    return np.concatenate(parts)


def grid(x_range: tuple[float, float], y_range: tuple[float, float], points: tuple[int, int]) -> np.ndarray:
    """Return the points (x, y) of a rectangular grid, shape (points_x · points_y, 2), by row, with ascending y."""
    x, y = (np.linspace(*limits, count) for limits, count in zip((x_range, y_range), points, strict=True))
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)


def evaluate_on_plane(
    surface: LossSurface, center: np.ndarray, directions: np.ndarray, points: np.ndarray, re_estimate: bool
) -> pd.DataFrame:
    """Evaluate a loss surface at θ + x·d₁ + y·d₂.

    Each point is computed from the center by itself, so that its value does not depend on the other points.

    Args:
        surface: The loss surface.
        center: The center θ, shape (p,).
        directions: The directions d₁ and d₂, shape (2, p).
        points: The points (x, y), shape (m, 2).
        re_estimate: Whether to re-estimate BatchNorm statistics at each point.

    Returns:
        One row for each point, with columns x, y, loss and the metrics of the task.
    """
    center = center.astype(np.float64)

    def evaluate(point: np.ndarray) -> dict[str, float]:
        weights = center + point[0] * directions[0] + point[1] * directions[1]
        if re_estimate and surface.has_batch_norm:
            surface.estimate_batch_norm_statistics(weights)
        return {"x": float(point[0]), "y": float(point[1]), **surface.value(weights).columns("")}

    rows = map_with_progress(evaluate, points, len(points), f"the loss over {len(surface)} examples")
    return pd.DataFrame(rows)


def analyze(
    run: RunDirectory, data: PreparedData, config: Config, direction_seed: int, part: int, parts: int
) -> pd.DataFrame:
    """Return the rows of `evaluate_on_plane` for one part of the grid around a run.

    Args:
        run: The run.
        data: The examples to look at.
        config: Section `landscape` of the config.
        direction_seed: Seed of the directions.
        part: Which part of the grid, from 1.
        parts: Number of parts.

    Returns:
        One row for each point; nan if the run did not reach the checkpoint.
    """
    weights = run.checkpoint_weights(config.checkpoint)
    surface = training_surface(run, data)
    policy = load_batch_norm_statistics(surface, weights, config.batch_norm)
    directions = [
        normalize_filters(direction, weights.vector, weights.shapes)
        for direction in random_directions(len(weights.vector), direction_seed)
    ]
    points = np.array_split(grid(config.x_range, config.y_range, config.points), parts)[part - 1]
    rows = evaluate_on_plane(surface, weights.vector, np.stack(directions), points, policy == "re-estimate")
    rows.insert(0, "checkpoint", run.checkpoint_name(config.checkpoint))
    rows.insert(1, "direction_seed", direction_seed)
    return rows.assign(batch_norm=policy, examples=len(surface))
