"""The training loss on a plane of two random directions around the weights of a run."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from batchscape.analysis.surfaces import load_batch_norm_statistics, training_surface
from batchscape.config.landscape import LandscapeConfig as Config
from batchscape.curvature.loss_surface import LossSurface
from batchscape.data.prepared import PreparedData
from batchscape.io.run_directory import RunDirectory
from batchscape.runtime.progress import map_with_progress


def random_directions(parameters: int, seed: int) -> np.ndarray:
    """Return two directions d ~ N(0, 1), (2, p): a function of (p, seed) alone, so that all models share them."""
    return np.random.default_rng(seed).standard_normal((2, parameters))


def normalize_filters(direction: np.ndarray, weights: np.ndarray, shapes: Mapping[str, tuple[int, ...]]) -> np.ndarray:
    """Return a direction, (p,), scaled filter by filter to the weights, (p,) (Li et al. 2018, section 4).

    A filter is an index of a parameter's first dimension: a convolution's filter, or a neuron's row of a dense layer.
    Each one, d_j, becomes d_j·‖θ_j‖/(‖d_j‖ + 1e-10); parameters of one dimension or none (biases, BatchNorm) become 0.
    """
    parts, start = [], 0
    for shape in shapes.values():
        end = start + int(np.prod(shape))
        if len(shape) > 1:
            filters = direction[start:end].reshape(shape[0], -1)
            target = np.linalg.norm(weights[start:end].reshape(shape[0], -1).astype(np.float64), axis=1)
            parts.append((filters * (target / (np.linalg.norm(filters, axis=1) + 1e-10))[:, None]).ravel())
        else:
            parts.append(np.zeros(end - start))
        start = end
    return np.concatenate(parts)


def grid(x_range: tuple[float, float], y_range: tuple[float, float], points: tuple[int, int]) -> np.ndarray:
    """Return the points (x, y) of a rectangle, (points_x · points_y, 2), row by row from the lowest y."""
    x, y = (np.linspace(*limits, count) for limits, count in zip((x_range, y_range), points, strict=True))
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)


def evaluate_on_plane(
    surface: LossSurface, center: np.ndarray, directions: np.ndarray, places: np.ndarray, re_estimate: bool
) -> pd.DataFrame:
    """Return `x`, `y`, `loss` and `accuracy` at θ + x·d₁ + y·d₂ for each (x, y) of places, (m, 2).

    Every point is computed from the center, θ, (p,), and the directions, (2, p), by itself, so that it does not
    depend on which other points are asked for. `re_estimate` takes BatchNorm statistics anew at each point.
    """
    center = center.astype(np.float64)

    def at(place: np.ndarray) -> tuple[float, float, float, float]:
        weights = center + place[0] * directions[0] + place[1] * directions[1]
        if re_estimate and surface.has_batch_norm:
            surface.estimate_statistics(weights)
        return (*place.tolist(), *surface.value(weights))

    rows = map_with_progress(at, places, len(places), f"the loss over {len(surface)} images")
    return pd.DataFrame(rows, columns=["x", "y", "loss", "accuracy"])


def analyze(
    run: RunDirectory, data: PreparedData, config: Config, direction_seed: int, part: int, parts: int
) -> pd.DataFrame:
    """Return one row for each point of one part of the grid; parts are counted from 1."""
    weights = run.checkpoint_weights(config.checkpoint)
    surface = training_surface(run, data)
    policy = load_batch_norm_statistics(surface, weights, config.batch_norm)
    directions = [
        normalize_filters(direction, weights.vector, weights.shapes)
        for direction in random_directions(len(weights.vector), direction_seed)
    ]
    places = np.array_split(grid(config.x_range, config.y_range, config.points), parts)[part - 1]
    rows = evaluate_on_plane(surface, weights.vector, np.stack(directions), places, policy == "re-estimate")
    rows.insert(0, "checkpoint", run.checkpoint_name(config.checkpoint))
    rows.insert(1, "direction_seed", direction_seed)
    return rows.assign(batch_norm=policy)
