"""Training trajectory in the plane of its two leading principal components, and the training loss on that plane."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA

from batchscape.analysis.landscape import evaluate_on_plane, grid
from batchscape.analysis.surfaces import load_batch_norm_statistics, training_surface
from batchscape.config.checkpoint import Checkpoint
from batchscape.config.trajectory import TrajectoryConfig as Config
from batchscape.data.prepared import PreparedData
from batchscape.io.run_directory import RunDirectory


@dataclass(frozen=True)
class Plane:
    """The plane through the minimum that explains most of the variance of a trajectory.

    Attributes:
        directions: Orthonormal directions, shape (2, p).
        explained_variance: Fraction of the variance of the trajectory along each direction, shape (2,).
        coordinates: The points of the trajectory, projected on the plane, shape (m, 2); the minimum is the origin.
    """

    directions: np.ndarray
    explained_variance: np.ndarray
    coordinates: np.ndarray


def principal_plane(trajectory: np.ndarray, minimum: np.ndarray) -> Plane:
    """Return the plane of the two leading principal components of θ_i − θ_best (Li et al. 2018, section 7.2).

    Args:
        trajectory: The weights θ_i, shape (m, p) with m ≥ 3.
        minimum: The weights θ_best, shape (p,).

    Returns:
        The plane.
    """
    differences = trajectory.astype(np.float64) - minimum.astype(np.float64)
    pca = PCA(n_components=2, svd_solver="full").fit(differences)
    directions = pca.components_
    return Plane(directions, pca.explained_variance_ratio_, differences @ directions.T)


def padded_range(coordinates: np.ndarray, margin: float) -> tuple[float, float]:
    """Return the range of coordinates, shape (m,), extended on both sides by a fraction of its length."""
    low, high = float(coordinates.min()), float(coordinates.max())
    padding = margin * (high - low) if high > low else 1.0  # a straight trajectory has no extent along the second axis
    return low - padding, high + padding


def analyze(run: RunDirectory, data: PreparedData, config: Config) -> pd.DataFrame:
    """Evaluate the training loss on the plane of a run's trajectory.

    The trajectory is `init`, the checkpoints of `training.checkpoints` that the run reached, `best` and `last`, without
    those that are not finite, as the last ones of a diverged run may be.

    Args:
        run: The run.
        data: The examples to look at.
        config: Section `trajectory` of the config.

    Returns:
        The points of the trajectory with their epoch, then the points of the grid, whose epoch is nan. A single row of
        nan if the trajectory has fewer than three different points, or the run has no best epoch.
    """
    checkpoints = _checkpoints_by_epoch(run)
    weights = {epoch: run.checkpoint_weights(checkpoint).vector for epoch, checkpoint in checkpoints.items()}
    weights = {epoch: vector for epoch, vector in weights.items() if np.isfinite(vector).all()}
    surface = training_surface(run, data)
    measures = ["x", "y", "loss", *surface.metrics, "explained_variance_x", "explained_variance_y"]
    columns = ["checkpoint", "epoch", *measures, "batch_norm", "examples"]
    if len({vector.tobytes() for vector in weights.values()}) < 3:
        empty = pd.DataFrame([dict.fromkeys(columns, np.nan)])
        return empty.assign(checkpoint="none", batch_norm="none")
    minimum = run.checkpoint_weights("best")
    policy = load_batch_norm_statistics(surface, minimum, config.batch_norm)
    plane = principal_plane(np.stack(list(weights.values())), minimum.vector)

    def evaluate(points: np.ndarray) -> pd.DataFrame:
        return evaluate_on_plane(surface, minimum.vector, plane.directions, points, policy == "re-estimate")

    names = [run.checkpoint_name(checkpoints[epoch]) for epoch in weights]
    trajectory = evaluate(plane.coordinates).assign(epoch=list(weights), checkpoint=names)
    x_range, y_range = (padded_range(plane.coordinates[:, axis], config.margin) for axis in (0, 1))
    surroundings = evaluate(grid(x_range, y_range, config.points)).assign(epoch=np.nan, checkpoint="none")
    rows = pd.concat([trajectory, surroundings], ignore_index=True)
    rows["explained_variance_x"], rows["explained_variance_y"] = plane.explained_variance
    return rows.assign(batch_norm=policy, examples=len(surface))[columns]


def _checkpoints_by_epoch(run: RunDirectory) -> dict[float, Checkpoint]:
    """Return the checkpoints of a run by epoch, in order; empty if it has no best epoch."""
    summary = run.summary()
    if summary["best_epoch"] is None:
        return {}
    checkpoints: dict[float, Checkpoint] = {0: "init", summary["epochs"]: "last", summary["best_epoch"]: "best"}
    for epoch in summary["spec"]["training"]["checkpoints"]:
        if epoch <= summary["epochs"]:
            checkpoints.setdefault(epoch, epoch)
    return dict(sorted(checkpoints.items()))
