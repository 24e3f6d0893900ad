"""Sharpness of the training loss around the weights of a run."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd
import psutil
from scipy.optimize import minimize
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

from batchscape.analysis.surfaces import build_initial_objective, evaluate_at_checkpoints, run_device
from batchscape.config.sharpness import SharpnessConfig as Config
from batchscape.data.prepared import PreparedData
from batchscape.errors import UserError
from batchscape.io.run_directory import RunDirectory
from batchscape.tasks.compatibility import diagnose_hessian, probe_batch

DifferentiableFunction = Callable[[np.ndarray], tuple[float, np.ndarray]]
"""Maps a point, shape (p,), to the value of a function and its gradient, shape (p,)."""

MatrixVectorProduct = Callable[[np.ndarray], np.ndarray]
"""Multiplies a symmetric matrix by a vector, shape (p,)."""

# L-BFGS-B starts with a step of the length of the gradient. The objective is scaled so that its steepest slope at the
# start is this large: then nearly all coordinates can reach the bounds of the box, in units of its half-widths.
STEEPEST_SLOPE = 100.0

# By default ARPACK takes 21 products, but the largest eigenvalues of networks are so far apart that after 9 products
# one is as accurate; else the iteration is restarted.
LANCZOS_VECTORS = 8

log = logging.getLogger(__name__)


class DifferentiableSurface(Protocol):
    """A function of the weights with first and second derivatives, such as a `LossSurface`."""

    def gradient(self, weights: np.ndarray) -> tuple[float, np.ndarray]:
        """Return f(θ) and ∇f(θ)."""

    def hessian_vector_product(self, weights: np.ndarray, vector: np.ndarray) -> np.ndarray:
        """Return ∇²f(θ)·v."""


@dataclass(frozen=True)
class Maximum:
    """The largest value of a function that was found in a box.

    Attributes:
        value: The largest value of all evaluations, at least that of the center; inf or nan if the search met such a
            value.
        center_value: The value at the center of the box.
        evaluations: Number of evaluations of the function with its gradient, over all starts.
        start: The start that found the maximum: `center`, `random 1`, ...; `none` if no start improved on the center.
        iterations: Number of iterations of L-BFGS-B from that start.
        on_bounds: Fraction of the coordinates of the maximum that lie on the bounds of the box.
    """

    value: float
    center_value: float
    evaluations: int
    start: str
    iterations: int
    on_bounds: float


class _NotFinite(Exception):
    """Raised by an objective to stop the optimizer."""


def maximize(
    function: DifferentiableFunction, half_widths: np.ndarray, iterations: int, random_starts: int, seed: int
) -> Maximum:
    """Maximize a function in the box |z_i| ≤ half_widths_i, inexactly, by L-BFGS-B.

    As in Keskar et al. 2017, appendix B, a few iterations are enough. The result is the largest value of any
    evaluation, and so a lower bound of the maximum. At a minimum of the function the gradient at the center is zero
    and the search from there ends at once; hence the random starts, uniform in the box. The optimizer works on z in
    units of the half-widths, with objective and gradient scaled by a common factor (`STEEPEST_SLOPE`).

    Args:
        function: The function and its gradient, at z of shape (p,).
        half_widths: Half-widths of the box, shape (p,).
        iterations: Maximum number of iterations from each start.
        random_starts: Number of random starts besides the center.
        seed: Seed of the random starts.

    Returns:
        The maximum.
    """
    center_value, center_gradient = function(np.zeros_like(half_widths))
    best = Maximum(center_value, center_value, 1, "none", 0, 0.0)
    if not np.isfinite(center_value):
        return best
    evaluations = 1
    generator = np.random.default_rng(seed)
    starts = {"center": np.zeros_like(half_widths)} | {
        f"random {number}": generator.uniform(-1, 1, len(half_widths)) for number in range(1, random_starts + 1)
    }
    for name, start in starts.items():
        value, gradient = (center_value, center_gradient) if name == "center" else function(start * half_widths)
        evaluations += name != "center"
        max_value, argmax = value, start
        steepest = np.abs(gradient * half_widths).max(initial=0.0)
        scale = STEEPEST_SLOPE / steepest if np.isfinite(steepest) and steepest > 0 else 1.0

        def objective(point: np.ndarray, scale: float = scale) -> tuple[float, np.ndarray]:
            nonlocal max_value, argmax, evaluations
            value, gradient = function(point * half_widths)
            evaluations += 1
            if not value <= max_value:  # larger, or nan
                max_value, argmax = value, point.copy()
            if not (np.isfinite(value) and np.isfinite(gradient).all()):
                raise _NotFinite
            return -scale * value, -scale * half_widths * gradient

        num_iterations = 0
        try:
            options = {"maxiter": iterations, "ftol": 0.0, "gtol": 0.0}
            num_iterations = minimize(
                objective, start, jac=True, method="L-BFGS-B", bounds=[(-1, 1)] * len(start), options=options
            ).nit
        except _NotFinite:
            pass
        if not max_value <= best.value:
            on_bounds = float(np.mean(np.abs(argmax) >= 1 - 1e-6))
            best = Maximum(max_value, center_value, evaluations, name, num_iterations, on_bounds)
        if not np.isfinite(best.value):
            break
    return Maximum(best.value, center_value, evaluations, best.start, best.iterations, best.on_bounds)


def keskar_sharpness(maximum: Maximum) -> float:
    """Return φ = 100·(max f − f(θ))/(1 + f(θ)), in percent (Keskar et al. 2017, Metric 2.1).

    nan for a negative loss, as that of the user may be: φ is relative to 1 + f, which is then no scale.
    """
    if maximum.center_value < 0:
        return np.nan
    return 100 * (maximum.value - maximum.center_value) / (1 + maximum.center_value)


def keskar_half_widths(weights: np.ndarray, epsilon: float) -> np.ndarray:
    """Return the half-widths ε·(|θ_i| + 1) of Keskar's box, shape (p,); in a subspace, `weights` is A⁺θ."""
    return epsilon * (np.abs(weights) + 1)


def random_subspace(dimension: int, num_parameters: int, seed: int) -> np.ndarray:
    """Return a random basis A of a subspace of the weights (Keskar et al. 2017, section 2.2.1).

    Args:
        dimension: Dimension of the subspace.
        num_parameters: Number of parameters, p.
        seed: Seed of the basis.

    Returns:
        Normally distributed columns of unit norm, shape (p, dimension), float64.

    Raises:
        UserError: If the basis does not fit in the memory of the machine.
    """
    # The basis, and the copy that least squares works on.
    num_bytes = 2 * dimension * num_parameters * np.dtype(np.float64).itemsize
    if num_bytes > psutil.virtual_memory().total:
        raise UserError(
            f"sharpness.subspace_dimension: {dimension} directions of {num_parameters} parameters need "
            f"{num_bytes / 2**30:.1f} GiB, more than the memory of this machine; use a smaller dimension"
        )
    columns = np.random.default_rng(seed).standard_normal((num_parameters, dimension))
    return columns / np.linalg.norm(columns, axis=0)


def restrict_to_subspace(function: DifferentiableFunction, basis: np.ndarray) -> DifferentiableFunction:
    """Return z ↦ f(A·z), with gradient Aᵀ∇f, for a basis A, shape (p, dimension)."""

    def restricted(point: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = function(basis @ point)
        return value, basis.T @ gradient

    return restricted


def top_eigenvalue(matvec: MatrixVectorProduct, size: int, seed: int) -> float:
    """Return the largest (not the largest in magnitude) eigenvalue of a symmetric matrix, by Lanczos iteration.

    Args:
        matvec: Multiplies the matrix by a vector.
        size: Number of rows of the matrix.
        seed: Seed of the start vector.

    Returns:
        The eigenvalue, with a relative accuracy of 0.1 %. nan if products are not finite or the iteration does not
        converge; 0 if the matrix is 0, as the Hessian of a network is if all its outputs are saturated.
    """
    if size == 1:  # ARPACK needs at least two
        return float(matvec(np.ones(1))[0])
    start = np.random.default_rng(seed).standard_normal(size)
    product = matvec(start)
    if not np.isfinite(product).all():
        return np.nan
    if not product.any():  # an error for ARPACK; a random vector is almost surely in no smaller null space
        return 0.0
    operator = LinearOperator((size, size), matvec=matvec, dtype=np.float64)
    try:
        return float(
            eigsh(
                operator,
                k=1,
                which="LA",
                v0=start,
                tol=1e-3,
                ncv=min(size, LANCZOS_VECTORS),
                return_eigenvectors=False,
            )[0]
        )
    except ArpackError:  # no convergence, or products that overflow during the iteration
        return np.nan


def hutchpp_trace(matvec: MatrixVectorProduct, size: int, num_matvecs: int, seed: int) -> float:
    """Estimate the trace of a symmetric matrix H by Hutch++ (Meyer et al. 2021, algorithm 1).

    With random signs S and G, shape (p, m/3), and Q an orthonormal basis of the range of H·S, the estimate is
    tr(QᵀHQ) + 3/m · tr(Gᵀ(I − QQᵀ)H(I − QQᵀ)G). It is unbiased, and exact if the rank of H is at most m/3.

    Args:
        matvec: Multiplies the matrix by a vector.
        size: Number of rows of the matrix, p.
        num_matvecs: Number of matrix-vector products, m, at least 3.
        seed: Seed of the random signs.

    Returns:
        The estimate; nan if products are not finite.
    """
    num_columns = num_matvecs // 3
    generator = np.random.RandomState(seed)  # a stream that NumPy never changes, unlike that of `default_rng`
    sketch, probes = (2.0 * generator.binomial(1, 0.5, size=(size, num_columns)) - 1 for _ in range(2))

    def multiply(matrix: np.ndarray) -> np.ndarray:
        return np.column_stack([matvec(np.ascontiguousarray(column)) for column in matrix.T])

    basis, _ = np.linalg.qr(multiply(sketch))
    probes = probes - basis @ (basis.T @ probes)
    return float(np.trace(basis.T @ multiply(basis)) + np.trace(probes.T @ multiply(probes)) / num_columns)


def measure_sharpness(
    surface: DifferentiableSurface, weights: np.ndarray, config: Config, no_hessian: str = ""
) -> pd.DataFrame:
    """Measure the sharpness of a loss surface at given weights.

    The measures are, with `radius` ε or ρ, and 0 for the Hessian:

    - `keskar`: Keskar's sharpness φ in the full space (`keskar_sharpness`).
    - `keskar_subspace`: φ in a random subspace.
    - `adaptive`: max f(θ + δ) − f(θ) over |δ_i| ≤ ρ|θ_i| (Kwon et al. 2021, definition 2, with element-wise
      normalization and p = ∞).
    - `hessian_eigenvalue`: the largest eigenvalue of the Hessian of f.
    - `hessian_trace`: an estimate of its trace.

    Args:
        surface: The loss surface f.
        weights: The weights θ, shape (p,).
        config: Section `sharpness` of the config.
        no_hessian: If not empty, the Hessian is not computed for this reason.

    Returns:
        One row for each measure and radius, with columns measure, radius, value, evaluations, iterations, on_bounds,
        best_start, not_computed and loss, f(θ). Values are nan where f is not finite, or the measure not computed.
    """
    weights = weights.astype(np.float64)

    def around(step: np.ndarray) -> tuple[float, np.ndarray]:
        return surface.gradient(weights + step)

    def search(function: DifferentiableFunction, half_widths: np.ndarray) -> Maximum:
        return maximize(function, half_widths, config.iterations, config.random_starts, config.seed)

    rows = []
    for epsilon in config.epsilons:
        maximum = search(around, keskar_half_widths(weights, epsilon))
        rows.append(_search_row("keskar", epsilon, keskar_sharpness(maximum), maximum))
    basis = random_subspace(min(config.subspace_dimension, len(weights)), len(weights), config.seed)
    coordinates = np.linalg.lstsq(basis, weights)[0]  # A⁺θ
    for epsilon in config.epsilons:
        maximum = search(restrict_to_subspace(around, basis), keskar_half_widths(coordinates, epsilon))
        rows.append(_search_row("keskar_subspace", epsilon, keskar_sharpness(maximum), maximum))
    for radius in config.adaptive_radii:
        maximum = search(around, radius * np.abs(weights))
        rows.append(_search_row("adaptive", radius, maximum.value - maximum.center_value, maximum))

    num_products = 0

    def matvec(vector: np.ndarray) -> np.ndarray:
        nonlocal num_products
        num_products += 1
        return surface.hessian_vector_product(weights, vector)

    size = len(weights)
    # Automatic differentiation may return finite derivatives where the loss is not finite.
    is_computed = np.isfinite(maximum.center_value) and not no_hessian
    value = top_eigenvalue(matvec, size, config.seed) if is_computed else np.nan
    rows.append(_row("hessian_eigenvalue", 0.0, value, num_products, not_computed=no_hessian or "none"))
    num_products = 0
    value = hutchpp_trace(matvec, size, config.trace_matvecs, config.seed) if is_computed else np.nan
    rows.append(_row("hessian_trace", 0.0, value, num_products, not_computed=no_hessian or "none"))
    return pd.DataFrame(rows).assign(loss=maximum.center_value)


def _search_row(measure: str, radius: float, value: float, maximum: Maximum) -> dict[str, object]:
    is_relative = measure != "adaptive"  # to the loss
    not_computed = "the loss is negative" if is_relative and maximum.center_value < 0 else "none"
    return _row(
        measure, radius, value, maximum.evaluations, maximum.iterations, maximum.on_bounds, maximum.start, not_computed
    )


def _row(
    measure: str,
    radius: float,
    value: float,
    evaluations: int,
    iterations: float = np.nan,
    on_bounds: float = np.nan,
    best_start: str = "none",
    not_computed: str = "none",
) -> dict[str, object]:
    log.info("%s, radius %g: %.6g after %d evaluations", measure, radius, value, evaluations)
    return {
        "measure": measure,
        "radius": radius,
        "value": value,
        "evaluations": evaluations,
        "iterations": iterations,
        "on_bounds": on_bounds,
        "best_start": best_start,
        "not_computed": not_computed,
    }


def analyze(run: RunDirectory, data: PreparedData, config: Config) -> pd.DataFrame:
    """Return the rows of `measure_sharpness` for each checkpoint; nan if the run did not reach it."""
    device = run_device(run)
    # Diagnosed at the initial weights of one seed, so that the result is the same for all runs of a study.
    objective = build_initial_objective(run, data, seed=0)
    no_hessian = diagnose_hessian(objective.on(objective.module.to(device)), probe_batch(data.train, device))
    return evaluate_at_checkpoints(
        run, data, config.checkpoints, lambda surface, weights: measure_sharpness(surface, weights, config, no_hessian)
    )
