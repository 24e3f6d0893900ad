"""The way of a training on the plane of its two leading principal components, and the training loss on that plane."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA

from batchscape.analysis.landscape import evaluate_on_plane, grid
from batchscape.analysis.surfaces import load_batch_norm_statistics, training_surface
from batchscape.config.trajectory import TrajectoryConfig as Config
from batchscape.data.prepared import PreparedData
from batchscape.io.run_directory import RunDirectory


@dataclass(frozen=True)
class Plane:
    """The plane through the minimizer that holds most of a trajectory."""

    directions: np.ndarray
    """Orthonormal, (2, p)."""

    shares: np.ndarray
    """Share of the variance of the trajectory along each direction, (2,)."""

    coordinates: np.ndarray
    """The trajectory's points on the plane, (m, 2); the minimizer is the origin."""


def principal_plane(trajectory: np.ndarray, minimizer: np.ndarray) -> Plane:
    """Return the plane of the two leading principal components of θ_i − θ_best (Li et al. 2018, section 7.2).

    `trajectory` is (m, p) with at least 3 points, `minimizer` (p,).
    """
    differences = trajectory.astype(np.float64) - minimizer.astype(np.float64)
    components = PCA(n_components=2, svd_solver="full").fit(differences)
    directions = components.components_
    return Plane(directions, components.explained_variance_ratio_, differences @ directions.T)


def bounds(coordinates: np.ndarray, margin: float) -> tuple[float, float]:
    """Return a range that reaches beyond coordinates, (m,), by a share of their extent on both sides."""
    low, high = float(coordinates.min()), float(coordinates.max())
    beyond = margin * (high - low) if high > low else 1.0  # a straight way has no extent across
    return low - beyond, high + beyond


def analyze(run: RunDirectory, data: PreparedData, config: Config) -> pd.DataFrame:
    """Return the points of the trajectory, with their epoch, and then those of the plane, whose epoch is nan.

    The trajectory is `init`, the snapshots that the run reached, `best` and `last`, as far as these weights are finite:
    the last ones of a run that diverged may not be. A run with fewer than three different ones, or without a minimizer,
    has a single row, of nan.
    """
    summary = run.summary()
    snapshots = summary["spec"]["training"]["checkpoints"]
    epochs = {0: "init", summary["epochs"]: "last", summary["best_epoch"]: "best"} if summary["best_epoch"] else {}
    epochs |= {epoch: epoch for epoch in snapshots if epoch <= summary["epochs"] and epoch not in epochs}
    weights = {epoch: run.checkpoint_weights(epochs[epoch]).vector for epoch in sorted(epochs)}
    weights = {epoch: vector for epoch, vector in weights.items() if np.isfinite(vector).all()}
    if len({vector.tobytes() for vector in weights.values()}) < 3:
        return pd.DataFrame(
            [
                dict.fromkeys(
                    ("epoch", "x", "y", "loss", "accuracy", "explained_variance_x", "explained_variance_y"),
                    np.nan,
                )
            ]
        ).assign(checkpoint="none", batch_norm="none")
    minimizer = run.checkpoint_weights("best")
    surface = training_surface(run, data)
    policy = load_batch_norm_statistics(surface, minimizer, config.batch_norm)
    order = list(weights)
    plane = principal_plane(np.stack(list(weights.values())), minimizer.vector)

    def losses(places: np.ndarray) -> pd.DataFrame:
        return evaluate_on_plane(surface, minimizer.vector, plane.directions, places, policy == "re-estimate")

    names = [run.checkpoint_name(epochs[epoch]) for epoch in order]
    trajectory = losses(plane.coordinates).assign(epoch=order, checkpoint=names)
    limits = (bounds(plane.coordinates[:, axis], config.margin) for axis in (0, 1))
    surroundings = losses(grid(*limits, config.points)).assign(epoch=np.nan, checkpoint="none")
    rows = pd.concat([trajectory, surroundings], ignore_index=True)
    rows = rows.assign(explained_variance_x=plane.shares[0], explained_variance_y=plane.shares[1], batch_norm=policy)
    return rows[
        [
            "checkpoint",
            "epoch",
            "x",
            "y",
            "loss",
            "accuracy",
            "explained_variance_x",
            "explained_variance_y",
            "batch_norm",
        ]
    ]
