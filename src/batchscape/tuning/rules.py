"""The rules of a search, as functions of its trials: which setting comes next, and which one is chosen."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from batchscape.config.scaling import LEARNING_RATE
from batchscape.tuning.space import BOUNDS, Point, Space

GRID, SEARCH, EXTENSION, FINALIST = "grid", "search", "extension", "finalist"
COMPLETED, DIVERGED, PRUNED = "completed", "diverged", "pruned"

# Coordinates are equal up to the rounding of products.
EQUAL = 1e-6
# A setting is as good as tried if all its hyperparameters are within this fraction of one that was.
SAME = 0.01


@dataclass(frozen=True)
class Outcome:
    """What a run of a trial has resulted in.

    Attributes:
        loss: The lowest validation loss; inf if the run diverged.
        initial_loss: The validation loss before training; inf if it is not known.
        status: `completed`, `diverged` or `pruned`.
        best_epoch: The epoch with that loss; nan if there is none.
        examples: Training examples, counted again in each epoch.
        cpu_seconds: CPU time of training.
    """

    loss: float
    status: str
    initial_loss: float = math.inf
    best_epoch: float = math.nan
    examples: int = 0
    cpu_seconds: float = 0.0


@dataclass(frozen=True)
class Trial:
    """A setting that was tried.

    Attributes:
        number: Its number, from 0.
        stage: `grid`, `search`, `extension` or `finalist`.
        point: Its coordinates.
        outcomes: The outcome by seed; of a pruned trial, without the seeds that were not trained.
    """

    number: int
    stage: str
    point: Point
    outcomes: Mapping[int, Outcome]

    @property
    def rate(self) -> float:
        """The learning rate."""
        return self.point[LEARNING_RATE]

    @property
    def is_pruned(self) -> bool:
        """Whether it ended early because it was worse than others."""
        return any(outcome.status == PRUNED for outcome in self.outcomes.values())

    @property
    def examples(self) -> int:
        """Training examples of all its runs."""
        return sum(outcome.examples for outcome in self.outcomes.values())

    def loss(self, quantile: float | None) -> float:
        """Return what a search minimizes, see `objective`."""
        return objective([outcome.loss for outcome in self.outcomes.values()], quantile)


def objective(losses: Sequence[float], quantile: float | None) -> float:
    """Return the quantile of losses over seeds, or their mean without one; inf if a loss is not finite.

    Args:
        losses: The loss of each seed.
        quantile: Between 0 and 1, interpolated linearly.
    """
    if not np.isfinite(losses).all():
        return math.inf
    return float(np.mean(losses) if quantile is None else np.quantile(losses, quantile))


def has_failed(trials: Sequence[Trial]) -> np.ndarray:
    """Return for each trial whether training failed with one of its seeds, (n,).

    It failed if the run diverged, or if its loss is nearer to that of what learned little than to the lowest one. That
    is the highest finite loss of the trials or, if it is lower, the loss of the seed before training.
    """
    losses = [trial.loss(None) for trial in trials]
    lowest, highest = min(losses), max(filter(math.isfinite, losses), default=math.inf)
    return np.array(
        [
            any(
                not math.isfinite(outcome.loss) or outcome.loss > (lowest + min(highest, outcome.initial_loss)) / 2
                for outcome in trial.outcomes.values()
            )
            for trial in trials
        ]
    )


def robust_losses(trials: Sequence[Trial], quantile: float | None, margin: float) -> np.ndarray:
    """Return the loss of each trial, or a higher one if training fails at up to `margin` times its rate, (n,).

    Then it is the highest loss of those trials that failed, among those whose other hyperparameters are equal. So a
    rate close to the one from which on training fails is not the best. A loss that only rises smoothly does not count.
    """
    losses = np.array([trial.loss(quantile) for trial in trials])
    rates = np.array([trial.rate for trial in trials])
    is_near = _has_equal_others(trials) & (rates >= rates[:, None]) & (rates <= margin * rates[:, None] * (1 + EQUAL))
    failed = np.where(is_near & has_failed(trials), losses, -math.inf).max(axis=1)
    return np.maximum(losses, failed)


def has_margin(trials: Sequence[Trial], index: int, quantile: float | None, margin: float) -> bool:
    """Return whether it is known how a setting trains at `margin` times its learning rate.

    Either this was tried, or a higher rate with a lower loss.
    """
    trial, is_equal = trials[index], _has_equal_others(trials)[index]
    if margin == 1:
        return True
    for other, equal in zip(trials, is_equal, strict=True):
        if equal and other.rate >= margin * trial.rate * (1 - EQUAL):
            is_exact = other.rate <= margin * trial.rate * (1 + SAME)
            if is_exact or other.loss(quantile) <= trial.loss(quantile):
                return True
    return False


def _has_equal_others(trials: Sequence[Trial]) -> np.ndarray:
    """Return for each pair of trials whether they differ only in the learning rate, (n, n)."""
    names = [name for name in trials[0].point if name != LEARNING_RATE]
    values = np.array([[trial.point[name] for name in names] for trial in trials]).reshape(len(trials), len(names))
    return np.isclose(values[:, None], values, rtol=EQUAL, atol=0).all(axis=2)


def rank(trials: Sequence[Trial], quantile: float | None, margin: float) -> list[int]:
    """Return the indices of the trials that were not pruned, the best first: by robust loss, then by rate."""
    losses = robust_losses(trials, quantile, margin)
    candidates = [index for index, trial in enumerate(trials) if not trial.is_pruned]
    return sorted(candidates, key=lambda index: (losses[index], trials[index].rate))


@dataclass(frozen=True)
class Proposal:
    """A setting to try.

    Attributes:
        stage: `grid`, `search` or `extension`.
        point: Its coordinates.
        is_prunable: Whether its trial may end early.
    """

    stage: str
    point: Point
    is_prunable: bool


def next_setting(trials: Sequence[Trial], space: Space, quantile: float | None, margin: float) -> Proposal | None:
    """Return the setting that the trials after the grid ask for; None if the sampler may choose.

    If the best setting is at an end of a range, it is the next one beyond; else, if nothing is known of `margin` times
    its learning rate, it is that, even beyond the limits of the range. The latter is never pruned: what matters is
    whether it fails at all.

    Args:
        trials: All trials so far.
        space: The space of the search, before any extension.
        quantile: See `objective`.
        margin: See `robust_losses`.
    """
    best = next(index for index in rank(trials, quantile, margin) if space.allows(trials[index].point))
    # Of a coordinate that had a single value, as in the grid, no end is better than the rest of the range.
    varied = [name for name in space.low if len({trial.point[name] for trial in trials}) > 1]
    if beyond := space.including([trial.point for trial in trials]).beyond(trials[best].point, varied):
        return Proposal(EXTENSION, beyond, is_prunable=True)
    rate = trials[best].rate * margin
    is_finite = math.isfinite(trials[best].loss(quantile))
    if is_finite and rate <= BOUNDS[LEARNING_RATE][1] and not has_margin(trials, best, quantile, margin):
        return Proposal(SEARCH, {**trials[best].point, LEARNING_RATE: rate}, is_prunable=False)
    return None


def is_tried(point: Point, trials: Sequence[Trial]) -> bool:
    """Return whether a setting is as good as tried, with differences of at most one percent."""
    return any(all(math.isclose(point[name], trial.point[name], rel_tol=SAME) for name in point) for trial in trials)


def choose_finalists(
    trials: Sequence[Trial], count: int, space: Space, quantile: float | None, margin: float
) -> list[int]:
    """Return the indices of the trials whose settings train again, the best first.

    Those of which nothing is known at `margin` times their learning rate are chosen only if there are no others. None
    is chosen whose loss is infinite, or that is beyond the limits of the space.
    """
    losses = robust_losses(trials, quantile, margin)
    candidates = [
        index
        for index in rank(trials, quantile, margin)
        if math.isfinite(losses[index]) and space.allows(trials[index].point)
    ]
    known = [index for index in candidates if has_margin(trials, index, quantile, margin)]
    return (known or candidates)[:count]


def excess_losses(trials: Sequence[Trial], quantile: float | None, margin: float) -> np.ndarray:
    """Return by how much the robust loss of each trial is above its own, (n,); nan if both are infinite."""
    losses = np.array([trial.loss(quantile) for trial in trials])
    with np.errstate(invalid="ignore"):
        return robust_losses(trials, quantile, margin) - losses


def choose(trials: Sequence[Trial], quantile: float | None, excess: np.ndarray) -> int:
    """Return the index of the setting to use, by the one-standard-error rule (Breiman et al. 1984).

    It is the one with the lowest learning rate of those whose loss is at most one standard error above the lowest
    loss. The standard error is that of the mean of the best one's seeds. If all losses are infinite, the rate is simply
    the lowest.

    Args:
        trials: The settings, each with all its seeds.
        quantile: See `objective`.
        excess: What is added to the loss of each, see `excess_losses`.
    """
    losses = np.array([trial.loss(quantile) for trial in trials]) + excess
    losses[np.isnan(losses)] = math.inf
    best = trials[int(losses.argmin())]
    values = [outcome.loss for outcome in best.outcomes.values()]
    finite = math.isfinite(losses.min())
    error = np.std(values, ddof=1) / math.sqrt(len(values)) if finite and len(values) > 1 else 0.0
    ties = [index for index, loss in enumerate(losses) if loss <= losses.min() + error]
    return min(ties, key=lambda index: (trials[index].rate, losses[index]))
