"""Curvature of the training loss during training, beside the edge of stability."""

import logging
import time
from dataclasses import dataclass

import numpy as np
import pandas as pd

from batchscape.analysis.sharpness import top_eigenvalue
from batchscape.analysis.surfaces import (
    build_initial_objective,
    load_batch_norm_statistics,
    run_device,
    training_surface,
)
from batchscape.config.budget import Budget
from batchscape.config.checkpoint import Checkpoint
from batchscape.config.curvature import CurvatureConfig as Config
from batchscape.config.optimizer import OptimizerConfig
from batchscape.config.run import RunSpec
from batchscape.config.scaling import known_hyperparameters
from batchscape.curvature.loss_surface import LossSurface
from batchscape.data.prepared import PreparedData
from batchscape.io.run_directory import RunDirectory
from batchscape.io.weights import Layers, distance_by_layer
from batchscape.runtime.duration import format_duration
from batchscape.tasks.compatibility import diagnose_hessian, probe_batch
from batchscape.training.plan import StepPlan

# Products with the Hessian that an eigenvalue takes, for the estimate in the log: ARPACK's first 9 mostly suffice.
USUAL_PRODUCTS = 10

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """Where in its training a run saved weights."""

    checkpoint: Checkpoint
    epoch: float
    step: int
    """Steps before; for an epoch after the end of the run, those that it would have taken."""


def saved_places(run: RunDirectory, plan: StepPlan) -> list[Place]:
    """Return the places of `init`, the epochs of `training.checkpoints`, `best` and `last`.

    Args:
        run: The run.
        plan: The steps of its budget.

    Returns:
        One place for each checkpoint, also for those that the run did not reach; the best epoch of a run without one is
        nan.
    """
    summary = run.summary()
    epochs = sorted(summary["spec"]["training"]["checkpoints"])
    return [
        Place("init", 0, 0),
        *(Place(epoch, epoch, plan.in_steps(Budget(epochs=epoch))) for epoch in epochs),
        Place("best", summary["best_epoch"] or np.nan, summary["best_step"] or 0),
        Place("last", summary["epochs"], summary["steps"]),
    ]


def stability_edge(optimizer: OptimizerConfig, learning_rate: float) -> float:
    """Return the product of λ_max and learning rate beyond which a full-batch step is unstable.

    For gradient descent it is 2. With momentum β it is 2·(1 + β), with Nesterov momentum 2·(1 + β)/(1 + 2β) (Cohen et
    al. 2021); dampening divides it by one minus itself, and weight decay, which adds to all eigenvalues, lowers it.

    Args:
        optimizer: The optimizer.
        learning_rate: η, by which weight decay counts.

    Returns:
        The edge; nan for optimizers other than SGD.
    """
    if optimizer.name != "SGD":
        return np.nan
    known, arguments = known_hyperparameters("SGD", optimizer.arguments), optimizer.arguments
    momentum = known["momentum"]
    # The first gradient is not dampened, and without momentum none is.
    dampening = arguments.get("dampening") if momentum else 0.0
    dampening = dampening if isinstance(dampening, int | float) else 0.0
    edge = 2 * (1 + momentum) / (1 - dampening)
    if arguments.get("nesterov"):
        edge /= 1 + 2 * momentum
    return edge - learning_rate * known["weight_decay"]


def preconditioned_edge(optimizer: OptimizerConfig) -> float:
    """Return the same for λ_max of the preconditioned Hessian of Adam, 2·(1 + β₁)/(1 − β₁) (Cohen et al. 2022).

    Args:
        optimizer: The optimizer; its weight decay is neglected.

    Returns:
        The edge; nan for optimizers other than Adam and AdamW, and with AMSGrad.
    """
    if optimizer.name not in ("Adam", "AdamW") or optimizer.arguments.get("amsgrad"):
        return np.nan
    beta1 = known_hyperparameters(optimizer.name, optimizer.arguments)["beta1"]
    return 2 * (1 + beta1) / (1 - beta1)


def adam_preconditioner(optimizer: OptimizerConfig, second_moments: np.ndarray, step: int) -> np.ndarray:
    """Return Adam's preconditioner P = √v̂ + ε, with v̂ = v/(1 − β₂^t) (Kingma & Ba 2015).

    Args:
        optimizer: Adam or AdamW.
        second_moments: v, shape (p,).
        step: t, the steps that have been taken.

    Returns:
        The diagonal of P, shape (p,); inf where no gradient has been other than 0, as of a frozen parameter, which Adam
        does not move.
    """
    known = known_hyperparameters(optimizer.name, optimizer.arguments)
    preconditioner = np.sqrt(second_moments.astype(np.float64) / (1 - known["beta2"] ** step)) + known["eps"]
    return np.where(second_moments == 0, np.inf, preconditioner)


def preconditioned_eigenvalue(
    surface: LossSurface, weights: np.ndarray, preconditioner: np.ndarray, seed: int
) -> float:
    """Return the largest eigenvalue of P^(−1/2)·H·P^(−1/2), which P⁻¹·H shares (Cohen et al. 2022).

    Args:
        surface: The loss, with Hessian H.
        weights: θ, shape (p,).
        preconditioner: The diagonal of P, shape (p,).
        seed: Seed of the start vector.
    """
    root = np.sqrt(preconditioner)
    return top_eigenvalue(
        lambda vector: surface.hessian_vector_product(weights, vector / root) / root, len(weights), seed
    )


def batch_sharpness(surface: LossSurface, weights: np.ndarray, batches: np.ndarray) -> np.ndarray:
    """Return gᵀ·H_B·g/‖g‖² of each batch B, with its gradient g and its Hessian H_B.

    Its mean is the batch sharpness of Andreyev & Beneventano 2024. It is the curvature of the loss of the batch along
    the step of gradient descent on it: above 2/η that step increases the loss of its own batch, if that is quadratic.

    Args:
        surface: The loss over all examples.
        weights: θ, shape (p,).
        batches: Indices of examples, shape (m, size).

    Returns:
        The curvatures, shape (m,); nan for a batch without a gradient.
    """
    values = []
    for batch in batches:
        _, gradient = surface.gradient(weights, batch)
        product = surface.hessian_vector_product(weights, gradient, batch)
        with np.errstate(invalid="ignore"):
            values.append(gradient @ product / (gradient @ gradient))
    return np.array(values)


def draw_batches(num_examples: int, batch_size: int, count: int, seed: int) -> np.ndarray:
    """Draw batches as training does, each without replacement.

    Args:
        num_examples: Number of examples to draw from.
        batch_size: Examples of a batch; all if there are no more.
        count: Number of batches.
        seed: Seed of the draw.

    Returns:
        Indices of examples, shape (count, batch_size); shape (1, num_examples) if a batch has all of them.
    """
    if batch_size >= num_examples:
        return np.arange(num_examples)[None]
    generator = np.random.default_rng(seed)
    return np.stack([generator.choice(num_examples, batch_size, replace=False) for _ in range(count)])


def measure_curvature(
    surface: LossSurface,
    weights: np.ndarray,
    batches: np.ndarray,
    layers: Layers,
    *,
    preconditioner: np.ndarray | None = None,
    seed: int = 0,
    no_hessian: str = "",
) -> dict[str, float]:
    """Measure curvature and norms at given weights.

    Args:
        surface: The training loss f.
        weights: The weights θ, shape (p,).
        batches: Indices of the examples of batches, shape (m, size).
        layers: The layers of the weights.
        preconditioner: The diagonal of Adam's preconditioner, shape (p,); None: there is none.
        seed: Seed of the start of the Lanczos iteration.
        no_hessian: If not empty, the Hessian is not computed for this reason.

    Returns:
        loss, hessian_eigenvalue, preconditioned_eigenvalue, batch_sharpness with its standard error batch_sharpness_se,
        and gradient_norm and weight_norm, in total and as `gradient_norm/<layer>`. Curvatures are nan where f or its
        gradient is not finite.
    """
    weights = weights.astype(np.float64)
    loss, gradient = surface.gradient(weights)
    values = dict.fromkeys(
        ("hessian_eigenvalue", "preconditioned_eigenvalue", "batch_sharpness", "batch_sharpness_se"), np.nan
    )
    # Automatic differentiation may return finite derivatives where the loss is not finite.
    if np.isfinite(loss) and np.isfinite(gradient).all() and not no_hessian:
        values["hessian_eigenvalue"] = top_eigenvalue(
            lambda vector: surface.hessian_vector_product(weights, vector), len(weights), seed
        )
        if preconditioner is not None:
            values["preconditioned_eigenvalue"] = preconditioned_eigenvalue(surface, weights, preconditioner, seed)
        curvatures = batch_sharpness(surface, weights, batches)
        values["batch_sharpness"] = curvatures.mean()
        if len(curvatures) > 1:
            values["batch_sharpness_se"] = curvatures.std(ddof=1) / np.sqrt(len(curvatures))
    norms: dict[str, float] = {}
    for name, vector in (("gradient_norm", gradient), ("weight_norm", weights)):
        by_layer = distance_by_layer(np.zeros_like(vector), vector, layers)
        norms[name] = float(np.linalg.norm(by_layer))
        norms |= {f"{name}/{layer}": float(norm) for layer, norm in zip(layers.names, by_layer, strict=True)}
    return {"loss": loss, **values, **norms}


def analyze(run: RunDirectory, data: PreparedData, config: Config) -> pd.DataFrame:
    """Measure the curvature at all weights that a run saved.

    Args:
        run: The run.
        data: The examples to look at.
        config: Section `curvature` of the config.

    Returns:
        One row for each checkpoint, with the columns of `measure_curvature`, the learning rate and the batch size of
        the step before, their products with it, and the edges of stability; nan if the run did not reach it.
    """
    summary, device = run.summary(), run_device(run)
    spec = RunSpec.model_validate(summary["spec"])
    plan = StepPlan(spec, summary["training_examples"])
    # As in `sharpness`, diagnosed at the initial weights of one seed.
    objective = build_initial_objective(run, data, seed=0)
    no_hessian = diagnose_hessian(objective.on(objective.module.to(device)), probe_batch(data.train, device))
    surface, places = training_surface(run, data), saved_places(run, plan)
    has_preconditioner = np.isfinite(preconditioned_edge(spec.optimizer))
    saved = {place.step: place.checkpoint for place in places if place.checkpoint not in ("init", "best")}
    if not no_hessian:
        _log_cost(surface, run, len({place.step for place in places}), has_preconditioner, config, spec.batch_size)
    rows, measured = [], {}
    for place in places:
        weights = run.checkpoint_weights(place.checkpoint)
        policy = load_batch_norm_statistics(surface, weights, "fixed")
        is_reached = bool(np.isfinite(weights.vector).any())
        step = max(1, place.step)  # before the first step, that one
        rate, batch_size = spec.learning_rate * plan.learning_rate_factor(step), plan.batch_size(step)
        batches = draw_batches(len(surface), batch_size, config.batches, config.seed)
        # `best` may be `last`, or one of the epochs.
        if (place.step, is_reached) not in measured:
            moments = run.second_moments(saved[place.step]) if has_preconditioner and place.step in saved else None
            measured[place.step, is_reached] = measure_curvature(
                surface,
                weights.vector,
                batches,
                weights.layers,
                preconditioner=None if moments is None else adam_preconditioner(spec.optimizer, moments, place.step),
                seed=config.seed,
                no_hessian=no_hessian,
            )
        found = measured[place.step, is_reached]
        log.info(
            "%s: λ %.6g, batch sharpness %.6g", place.checkpoint, found["hessian_eigenvalue"], found["batch_sharpness"]
        )
        rows.append(
            {
                "checkpoint": run.checkpoint_name(place.checkpoint),
                "epoch": place.epoch if is_reached else np.nan,
                "step": place.step if is_reached else np.nan,
                "step_batch_size": batch_size,
                "step_learning_rate": rate,
                "eigenvalue_times_rate": found["hessian_eigenvalue"] * rate,
                "batch_sharpness_times_rate": found["batch_sharpness"] * rate,
                "edge": stability_edge(spec.optimizer, rate),
                "preconditioned_times_rate": found["preconditioned_eigenvalue"] * rate,
                "preconditioned_edge": preconditioned_edge(spec.optimizer),
                **found,
                "batches": len(batches),
                "not_computed": no_hessian or "none",
                "batch_norm": policy,
                "examples": len(surface),
            }
        )
    return pd.DataFrame(rows)


def _log_cost(
    surface: LossSurface, run: RunDirectory, checkpoints: int, has_preconditioner: bool, config: Config, batch_size: int
) -> None:
    """Log how many products there will be, and their time from one of them."""
    weights, count = run.checkpoint_weights("init"), len(surface)
    load_batch_norm_statistics(surface, weights, "fixed")
    surface.hessian_vector_product(weights.vector, weights.vector)  # the first one takes longer
    started = time.perf_counter()
    surface.hessian_vector_product(weights.vector, weights.vector)
    seconds = time.perf_counter() - started
    products, size = checkpoints * USUAL_PRODUCTS * (1 + has_preconditioner), min(batch_size, count)
    batches = checkpoints * (config.batches if size < count else 1)
    log.info(
        "%s, %d checkpoints: about %d Hessian-vector products over %d examples, and %d with as many gradients over "
        "batches of %d, about %s",
        run.path.name, checkpoints, products, count, batches, size,
        format_duration(seconds * (products + 1.5 * batches * size / count)),
    )  # fmt: skip
