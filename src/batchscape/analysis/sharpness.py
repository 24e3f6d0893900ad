"""How sharp the training loss is around the weights of a run."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import psutil
from pylops.utils.estimators import trace_hutchpp
from scipy.optimize import minimize
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

from batchscape.analysis.surfaces import device_of, evaluate_at_checkpoints, initial_network
from batchscape.config.sharpness import SharpnessConfig as Config
from batchscape.data.prepared import PreparedData
from batchscape.data.tensors import to_tensors
from batchscape.errors import UserError
from batchscape.io.run_directory import RunDirectory
from batchscape.tasks.compatibility import NUM_PROBE_EXAMPLES, diagnose_hessian

# From a point to the value there and its gradient.
Differentiable = Callable[[np.ndarray], tuple[float, np.ndarray]]

# The objective is scaled so that the largest slope at a start is this: L-BFGS-B begins with a step of one slope, and
# the box, in units of its half-widths, then lies within the reach of nearly all coordinates.
STEEPEST_SLOPE = 100.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Maximum:
    """The greatest value of a function that was seen in a box."""

    value: float
    """Never below that of the center; `nan` or `inf` if the function was not finite somewhere on the way."""

    center_value: float
    evaluations: int
    """Of the function with its gradient, over all starts."""

    start: str
    """Which start found it: `center`, `random 1`, …; `none` if no start went above the center."""

    iterations: int
    """Of L-BFGS-B from that start."""

    on_bounds: float
    """Share of the coordinates on the bounds of the box, at the maximum."""


class _NotFinite(Exception):
    pass


def maximize(
    function: Differentiable, half_widths: np.ndarray, iterations: int, random_starts: int, seed: int
) -> Maximum:
    """Maximise a function in the box |z_i| ≤ half_widths_i, inexactly, by L-BFGS-B from its center and random starts.

    As Keskar et al. 2017, appendix B: a few iterations are enough. The result is the greatest value seen, in whatever
    evaluation. At a minimum the slope at the center is zero and the search from there ends at once, hence the random
    starts, uniform in the box. The search sees z in units of the half-widths, and objective and gradient times one
    factor (`STEEPEST_SLOPE`).
    """
    center_value, center_slope = function(np.zeros_like(half_widths))
    best = Maximum(center_value, center_value, 1, "none", 0, 0.0)
    if not np.isfinite(center_value):
        return best
    evaluations = 1
    draw = np.random.default_rng(seed)
    starts = {"center": np.zeros_like(half_widths)} | {
        f"random {number}": draw.uniform(-1, 1, len(half_widths)) for number in range(1, random_starts + 1)
    }
    for name, start in starts.items():
        value, slope = (center_value, center_slope) if name == "center" else function(start * half_widths)
        evaluations += name != "center"
        seen, place = value, start
        steepest = np.abs(slope * half_widths).max(initial=0.0)
        factor = STEEPEST_SLOPE / steepest if np.isfinite(steepest) and steepest > 0 else 1.0

        def objective(point: np.ndarray, factor: float = factor) -> tuple[float, np.ndarray]:
            nonlocal seen, place, evaluations
            value, slope = function(point * half_widths)
            evaluations += 1
            if not value <= seen:  # greater, or not a number
                seen, place = value, point.copy()
            if not (np.isfinite(value) and np.isfinite(slope).all()):
                raise _NotFinite
            return -factor * value, -factor * half_widths * slope

        done = 0
        try:
            options = {"maxiter": iterations, "ftol": 0.0, "gtol": 0.0}
            done = minimize(
                objective, start, jac=True, method="L-BFGS-B", bounds=[(-1, 1)] * len(start), options=options
            ).nit
        except _NotFinite:
            pass
        if not seen <= best.value:
            on_bounds = float(np.mean(np.abs(place) >= 1 - 1e-6))
            best = Maximum(seen, center_value, evaluations, name, done, on_bounds)
        if not np.isfinite(best.value):
            break
    return Maximum(best.value, center_value, evaluations, best.start, best.iterations, best.on_bounds)


def keskar_sharpness(maximum: Maximum) -> float:
    """Return φ = 100·(max f − f(x))/(1 + f(x)) (Keskar et al. 2017, Metric 2.1)."""
    return 100 * (maximum.value - maximum.center_value) / (1 + maximum.center_value)


def keskar_half_widths(weights: np.ndarray, epsilon: float) -> np.ndarray:
    """Return the half-widths ε·(|x_i| + 1) of Keskar's box, (p,), in the full space or for A⁺x in a subspace."""
    return epsilon * (np.abs(weights) + 1)


def random_subspace(dimension: int, parameters: int, seed: int) -> np.ndarray:
    """Return A, (p, dimension): normal columns of unit norm (Keskar et al. 2017, section 2.2.1).

    Raises UserError if the machine has not the memory for it.
    """
    needed = 2 * dimension * parameters * np.dtype(np.float64).itemsize  # A, and the copy that least squares works on
    if needed > psutil.virtual_memory().total:
        raise UserError(
            f"sharpness.subspace_dimension: {dimension} directions of {parameters} parameters take "
            f"{needed / 2**30:.1f} GiB, more than the memory of this machine; lower it"
        )
    columns = np.random.default_rng(seed).standard_normal((parameters, dimension))
    return columns / np.linalg.norm(columns, axis=0)


def restrict_to_subspace(function: Differentiable, basis: np.ndarray) -> Differentiable:
    """Return z ↦ function(A·z) with its gradient Aᵀ∇."""

    def inner(point: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = function(basis @ point)
        return value, basis.T @ slope

    return inner


def top_eigenvalue(product: Callable[[np.ndarray], np.ndarray], parameters: int, seed: int) -> float:
    """Return the greatest eigenvalue of the symmetric matrix that `product` multiplies by, to 0.1 % (Lanczos, ARPACK).

    `nan` if the products are not finite or the iteration does not converge. 0 if the matrix is, as that of a network
    whose outputs are all saturated or whose units are all dead.
    """
    if parameters == 1:  # ARPACK wants more
        return float(product(np.ones(1))[0])
    start = np.random.default_rng(seed).standard_normal(parameters)
    image = product(start)
    if not np.isfinite(image).all():
        return np.nan
    if not image.any():  # ARPACK takes it for an error; a random vector is in no smaller null space
        return 0.0
    operator = LinearOperator((parameters, parameters), matvec=product, dtype=np.float64)
    try:
        return float(eigsh(operator, k=1, which="LA", v0=start, tol=1e-3, return_eigenvectors=False)[0])
    except ArpackError:  # no convergence, or products that overflow on the way
        return np.nan


def trace(product: Callable[[np.ndarray], np.ndarray], parameters: int, products: int, seed: int) -> float:
    """Return an estimate of the trace of the symmetric matrix that `product` multiplies by.

    By Hutch++ (Meyer et al. 2021, algorithm 1). `products` is the number of matrix-vector products that
    it may take, at least 3. `nan` if they are not finite.
    """
    operator = LinearOperator((parameters, parameters), matvec=product, dtype=np.float64)
    # The estimator draws from the global state.
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        return float(trace_hutchpp(operator, neval=products))
    finally:
        np.random.set_state(state)  # noqa: NPY002


def measure(surface, weights: np.ndarray, config: Config, no_hessian: str = "") -> pd.DataFrame:
    """Return one row a measure of a loss surface at weights, (p,).

    `surface` has `gradient(θ)`, giving f(θ) and ∇f(θ), and `hessian_vector_product(θ, v)`, as a LossSurface has.
    Measures are Keskar's sharpness in the full space (`keskar`) and in a random subspace (`keskar_subspace`), adaptive
    sharpness max f(θ + δ) − f(θ) over |δ_i| ≤ ρ|θ_i| (`adaptive`; Kwon et al. 2021, definition 2, with the element-wise
    normalization and p = ∞), and of the Hessian of f the greatest eigenvalue (`hessian_eigenvalue`) and the trace
    (`hessian_trace`), nan where f is not finite. `radius` is ε or ρ, and 0 for the Hessian, the limit of a small box.
    `no_hessian` says why the Hessian is not to be computed; then its values are nan and `not_computed` says that.
    """
    weights = weights.astype(np.float64)

    def around(step: np.ndarray) -> tuple[float, np.ndarray]:
        return surface.gradient(weights + step)

    search = {"iterations": config.iterations, "random_starts": config.random_starts, "seed": config.seed}
    rows = []
    for epsilon in config.epsilons:
        found = maximize(around, keskar_half_widths(weights, epsilon), **search)
        rows.append(_row("keskar", epsilon, keskar_sharpness(found), found.evaluations, found))
    basis = random_subspace(min(config.subspace_dimension, len(weights)), len(weights), config.seed)
    coordinates = np.linalg.lstsq(basis, weights)[0]  # A⁺x
    for epsilon in config.epsilons:
        found = maximize(restrict_to_subspace(around, basis), keskar_half_widths(coordinates, epsilon), **search)
        rows.append(_row("keskar_subspace", epsilon, keskar_sharpness(found), found.evaluations, found))
    for radius in config.adaptive_radii:
        found = maximize(around, radius * np.abs(weights), **search)
        rows.append(_row("adaptive", radius, found.value - found.center_value, found.evaluations, found))

    count = len(weights)

    products = 0

    def product(vector: np.ndarray) -> np.ndarray:
        nonlocal products
        products += 1
        return surface.hessian_vector_product(weights, vector.ravel())

    # Automatic differentiation may give numbers where the loss itself is none.
    computed = np.isfinite(found.center_value) and not no_hessian
    value = top_eigenvalue(product, count, config.seed) if computed else np.nan
    rows.append(_row("hessian_eigenvalue", 0.0, value, products, no_hessian=no_hessian))
    before = products
    value = trace(product, count, config.trace_matvecs, config.seed) if computed else np.nan
    rows.append(_row("hessian_trace", 0.0, value, products - before, no_hessian=no_hessian))
    return pd.DataFrame(rows).assign(loss=found.center_value)


def _row(
    name: str, radius: float, value: float, evaluations: int, found: Maximum | None = None, no_hessian: str = ""
) -> dict[str, object]:
    search = {
        "evaluations": evaluations,
        "iterations": found.iterations if found else np.nan,
        "on_bounds": found.on_bounds if found else np.nan,
        "best_start": found.start if found else "none",
        "not_computed": no_hessian or "none",
    }
    log.info("%s, radius %g: %.6g after %s evaluations", name, radius, value, search["evaluations"])
    return {"measure": name, "radius": radius, "value": value, **search}


def analyze(run: RunDirectory, data: PreparedData, config: Config) -> pd.DataFrame:
    """Return one row for each checkpoint and measure of the training loss; nan where the run did not come so far."""
    device = device_of(run)
    # As before anything trained: of the same weights, so that all runs of a study are told the same.
    network = initial_network(run, data, seed=0).to(device)
    no_hessian = diagnose_hessian(
        network, *to_tensors(data.train_images[:NUM_PROBE_EXAMPLES], data.train_labels[:NUM_PROBE_EXAMPLES], device)
    )
    return evaluate_at_checkpoints(
        run, data, config.checkpoints, lambda surface, weights: measure(surface, weights, config, no_hessian)
    )
