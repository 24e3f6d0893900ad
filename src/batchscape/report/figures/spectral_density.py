"""The spectral density of the Hessian by batch size, on a logarithmic axis."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotnine as p9

from batchscape.report.figures import style

NUM_POINTS = 400
# Standard deviation of the Gaussian of each node, relative to the range of all eigenvalues.
WIDTH = 0.01
# Densities below this, relative to the highest one, are drawn there: they are only the tails of the Gaussians.
LOWEST = 1e-7


def draw(spectral_density: pd.DataFrame, table: pd.DataFrame, *, batch_sizes: Sequence[int]) -> p9.ggplot:
    """`spectral_density` gives the nodes, `table` the number of seeds, `batch_sizes` those of the study, which
    determine the colors."""
    nodes = spectral_density[spectral_density["status"] != "diverged"].dropna(subset=["eigenvalue"])
    checkpoints = list(dict.fromkeys(spectral_density["checkpoint"]))
    curves = pd.DataFrame(columns=["checkpoint", "setting", "batch_size", "eigenvalue", "density"])
    if len(nodes):
        curves = pd.concat([_curves(rows) for _, rows in nodes.groupby("checkpoint")], ignore_index=True)
    seeds = style.describe_seeds(table["n_seeds"], table.drop_duplicates(["setting", "checkpoint"])["n_diverged"])
    return (_lines(curves, checkpoints, pd.Series(batch_sizes)) if len(curves) else style.empty_plot()) + p9.labs(
        title="Spectral density of the Hessian",
        subtitle=(
            f"One line per setting, mean over probes and {seeds}; each node of the quadrature is a Gaussian with a "
            "standard deviation of 1 % of the range"
        )
        + style.describe_not_computed(spectral_density),
        x="Eigenvalue",
        y="Density",
    )


def smooth_density(eigenvalues: np.ndarray, weights: np.ndarray, points: np.ndarray, width: float) -> np.ndarray:
    """Return Σ weights·N(point; eigenvalue, width²) (Ghorbani et al. 2019, section 2).

    Args:
        eigenvalues: Nodes, shape (m,).
        weights: Their weights, with the sum 1, shape (m,).
        points: Where the density is wanted, shape (n,).
        width: Standard deviation of the Gaussians.

    Returns:
        The density, shape (n,).
    """
    distances = (points[:, None] - eigenvalues) / width
    return np.exp(-(distances**2) / 2) @ weights / (width * np.sqrt(2 * np.pi))


def _curves(nodes: pd.DataFrame) -> pd.DataFrame:
    """Return the densities of all settings at a checkpoint, at the same points."""
    low, high = nodes["eigenvalue"].min(), nodes["eigenvalue"].max()
    width = WIDTH * (high - low) or 1.0  # of a Hessian of zeros
    points = np.linspace(low - 3 * width, high + 3 * width, NUM_POINTS)
    curves = []
    for (setting, batch_size, checkpoint), rows in nodes.groupby(["setting", "batch_size", "checkpoint"]):
        shares = (rows["weight"] / rows["weight"].sum()).to_numpy()
        density = smooth_density(rows["eigenvalue"].to_numpy(), shares, points, width)
        curve = pd.DataFrame({"eigenvalue": points, "density": density})
        curves.append(curve.assign(setting=setting, batch_size=batch_size, checkpoint=checkpoint))
    rows = pd.concat(curves)
    return rows.assign(density=rows["density"].clip(lower=LOWEST * rows["density"].max()))


def _lines(curves: pd.DataFrame, checkpoints: list[str], batch_sizes: pd.Series) -> p9.ggplot:
    curves = curves.assign(
        panel=pd.Categorical(curves["checkpoint"], categories=checkpoints, ordered=True),
        batch_size=style.as_batch_size_categories(curves["batch_size"]),
    )
    return (
        p9.ggplot(curves, p9.aes("eigenvalue", "density", color="batch_size", group="setting"))
        + p9.geom_line(size=0.6)
        + p9.facet_wrap("panel", scales="free_x")
        + p9.scale_y_log10(labels=style.tick_labels)
        + style.batch_size_scales(batch_sizes)
        + style.theme()
    )
