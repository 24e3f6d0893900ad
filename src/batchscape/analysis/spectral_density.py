"""The spectral density of the Hessian of the training loss, and its trace by layer."""

import logging
from typing import NamedTuple

import numpy as np
import pandas as pd
import psutil
from scipy.linalg import eigh_tridiagonal

from batchscape.analysis.distance import ALL_LAYERS
from batchscape.analysis.sharpness import MatrixVectorProduct
from batchscape.analysis.surfaces import (
    build_initial_objective,
    load_batch_norm_statistics,
    run_device,
    training_surface,
)
from batchscape.config.spectral_density import SpectralDensityConfig as Config
from batchscape.data.prepared import PreparedData
from batchscape.errors import UserError
from batchscape.io.run_directory import RunDirectory
from batchscape.io.weights import Layers
from batchscape.tasks.compatibility import diagnose_hessian, probe_batch

# The iteration ends where a step adds less than this to the basis, relative to the first product: then it has all
# eigenvectors that the probe contains.
BREAKDOWN = 1e-10

log = logging.getLogger(__name__)


class Quadrature(NamedTuple):
    """What a probe v of norm 1 sees of the spectrum of a symmetric matrix H: vᵀf(H)v ≈ Σ weights·f(eigenvalues).

    Attributes:
        eigenvalues: The nodes, ascending, shape (m,).
        weights: Their weights, at least 0, with the sum 1, shape (m,).
        product: H·v, shape (p,).
    """

    eigenvalues: np.ndarray
    weights: np.ndarray
    product: np.ndarray


def lanczos_quadrature(matvec: MatrixVectorProduct, probe: np.ndarray, steps: int) -> Quadrature:
    """Return the Gauss quadrature of a probe, by the Lanczos iteration (Ghorbani et al. 2019, section 2).

    With the tridiagonal matrix T = U·diag(λ)·Uᵀ of the iteration, the nodes are λ and the weights the squares of the
    first row of U. Each vector is orthogonalized twice against all earlier ones, because rounding would otherwise add
    copies of eigenvalues. It is exact for polynomials up to degree 2m − 1.

    Args:
        matvec: Multiplies the matrix by a vector.
        probe: v, shape (p,), of norm 1.
        steps: The number of products, m; fewer if the basis is complete before.

    Returns:
        The quadrature; nan if a product is not finite.
    """
    basis = np.empty((min(steps, len(probe)), len(probe)))
    diagonal, off_diagonal = [], []
    vector, first = probe, np.empty(0)
    for step in range(len(basis)):
        basis[step] = vector
        product = matvec(vector)
        if not np.isfinite(product).all():
            return Quadrature(np.array([np.nan]), np.array([np.nan]), np.full(len(probe), np.nan))
        first = product if step == 0 else first
        diagonal.append(vector @ product)
        for _ in range(2):
            product = product - basis[: step + 1].T @ (basis[: step + 1] @ product)
        norm = np.linalg.norm(product)
        if step + 1 == len(basis) or norm <= BREAKDOWN * np.linalg.norm(first):
            break
        off_diagonal.append(norm)
        vector = product / norm
    eigenvalues, vectors = eigh_tridiagonal(np.array(diagonal), np.array(off_diagonal))
    return Quadrature(eigenvalues, vectors[0] ** 2, first)


def measure_spectrum(
    matvec: MatrixVectorProduct, layers: Layers, size: int, *, steps: int, probes: int, seed: int
) -> pd.DataFrame:
    """Measure the spectrum of a symmetric matrix with random probes, and the traces of its diagonal blocks.

    The probes are random signs. With v of them, E[Σ_{i in layer} v_i·(H·v)_i] is the trace of the block of the layer
    (Hutchinson 1990), so the first products of the iterations give the traces of all layers.

    Args:
        matvec: Multiplies the matrix by a vector.
        layers: The blocks.
        size: Number of rows of the matrix, p.
        steps: Lanczos steps from each probe.
        probes: Number of probes.
        seed: Seed of the probes.

    Returns:
        For each probe, one row for each node, with `eigenvalue` and `weight`, and one for each layer and for all
        layers, with `trace`; the other columns are nan.

    Raises:
        UserError: If the basis does not fit in the memory of the machine.
    """
    num_bytes = 2 * min(steps, size) * size * np.dtype(np.float64).itemsize
    if num_bytes > psutil.virtual_memory().total:
        raise UserError(
            f"spectral_density.steps: {steps} vectors of {size} parameters need {num_bytes / 2**30:.1f} GiB, more than "
            "the memory of this machine; use fewer"
        )
    generator = np.random.RandomState(seed)  # a stream that NumPy never changes
    rows = []
    for number in range(1, probes + 1):
        signs = 2.0 * generator.binomial(1, 0.5, size=size) - 1
        found = lanczos_quadrature(matvec, signs / np.sqrt(size), steps)
        traces = layers.sum(signs * found.product * np.sqrt(size))
        nodes = pd.DataFrame({"layer": ALL_LAYERS, "eigenvalue": found.eigenvalues, "weight": found.weights})
        names = {"layer": [*layers.names, ALL_LAYERS], "trace": [*traces, traces.sum()]}
        rows.append(pd.concat([nodes, pd.DataFrame(names)]).assign(probe=number))
        log.info("probe %d of %d: eigenvalues from %.6g to %.6g", number, probes, *found.eigenvalues[[0, -1]])
    return pd.concat(rows, ignore_index=True)[["probe", "layer", "eigenvalue", "weight", "trace"]]


def analyze(run: RunDirectory, data: PreparedData, config: Config) -> pd.DataFrame:
    """Return the rows of `measure_spectrum` for each checkpoint; one row of nan if there is no finite loss there."""
    device = run_device(run)
    # As in `sharpness`, diagnosed at the initial weights of one seed.
    objective = build_initial_objective(run, data, seed=0)
    no_hessian = diagnose_hessian(objective.on(objective.module.to(device)), probe_batch(data.train, device))
    surface = training_surface(run, data)
    frames = []
    for checkpoint in config.checkpoints:
        weights = run.checkpoint_weights(checkpoint)
        policy = load_batch_norm_statistics(surface, weights, "fixed")
        vector = weights.vector.astype(np.float64)
        rows = pd.DataFrame(
            [{"probe": 0, "layer": ALL_LAYERS, "eigenvalue": np.nan, "weight": np.nan, "trace": np.nan}]
        )
        # Automatic differentiation may return finite derivatives where the loss is not finite.
        if not no_hessian and np.isfinite(surface.gradient(vector)[0]):

            def multiply(direction: np.ndarray, vector: np.ndarray = vector) -> np.ndarray:
                return surface.hessian_vector_product(vector, direction)

            rows = measure_spectrum(
                multiply, weights.layers, len(vector), steps=config.steps, probes=config.probes, seed=config.seed
            )
        rows.insert(0, "checkpoint", run.checkpoint_name(checkpoint))
        frames.append(rows.assign(not_computed=no_hessian or "none", batch_norm=policy, examples=len(surface)))
    return pd.concat(frames, ignore_index=True)
