"""The best value of a hyperparameter between those that were tried, and the range of values that are nearly as good."""

from typing import NamedTuple

import numpy as np

# The parabola is fitted to the values within this factor of the best one, up to this multiple of its loss: further
# away a loss is no parabola, least of all where training collapses.
WINDOW = 4.0
MAX_LOSS_RATIO = 2.0
ROUNDING = 1e-9


class Optimum(NamedTuple):
    """The best position on a logarithmic axis, and whether it is known between the tried ones."""

    position: float
    is_inside: bool


class ToleratedRange(NamedTuple):
    """The ends of the range of positions whose loss is within the margin, and what is beyond each of them."""

    low: float
    high: float
    low_end: str
    high_end: str


def mean_over_seeds(losses: np.ndarray) -> np.ndarray:
    """Return the mean loss at each position.

    Args:
        losses: Losses, shape (seeds, positions): inf for a run that diverged, nan for one that does not exist.

    Returns:
        The means over the runs that exist, shape (positions,): inf where one diverged, nan where there is none.
    """
    with np.errstate(invalid="ignore"):
        return np.nansum(losses, axis=0) / np.sum(~np.isnan(losses), axis=0)


def find_optimum(positions: np.ndarray, losses: np.ndarray) -> Optimum:
    """Return the vertex of a parabola through the losses around the lowest one.

    The best of a few values is quantized; the vertex is not. The parabola is fitted by least squares to the logarithm
    of the loss if all losses are positive, else to the loss, at the values within a factor of 4 of the best one whose
    loss is at most twice the lowest, or if these are fewer than three, at the best value and its neighbors. It is never
    extrapolated.

    Args:
        positions: Logarithms of the tried values, ascending, shape (n,).
        losses: Mean loss at each, shape (n,): inf where a run diverged, nan where nothing was trained.

    Returns:
        The vertex. It is not inside if the best value is the lowest or the highest that was tried, or if there are
        fewer than three losses to fit: then it is the best value. nan if every run diverged.
    """
    tried = ~np.isnan(losses)
    positions, losses = positions[tried], losses[tried]
    finite = np.isfinite(losses)
    if not finite.any():
        return Optimum(np.nan, False)
    best = int(np.argmin(losses))
    if best in (0, len(losses) - 1):
        return Optimum(float(positions[best]), False)
    is_positive = losses[finite].min() > 0
    near = finite & (np.abs(positions - positions[best]) <= np.log(WINDOW) + ROUNDING)
    if is_positive:
        near &= losses <= MAX_LOSS_RATIO * losses[best]
    if near.sum() < 3:
        near = finite & (np.abs(np.arange(len(losses)) - best) <= 1)
    if near.sum() < 3:
        return Optimum(float(positions[best]), False)
    x, y = positions[near] - positions[best], np.log(losses[near]) if is_positive else losses[near]
    curvature, slope, _ = np.polyfit(x, y, 2)
    vertex = np.clip(-slope / (2 * curvature), x[0], x[-1]) if curvature > 0 else 0.0
    return Optimum(float(positions[best] + vertex), True)


def find_tolerated_range(positions: np.ndarray, losses: np.ndarray, margin: float) -> ToleratedRange:
    """Return the range around the best value in which the loss exceeds the lowest by at most a margin.

    Between two tried values the logarithm of the loss is interpolated linearly.

    Args:
        positions: Logarithms of the tried values, ascending, shape (n,).
        losses: Mean loss at each, shape (n,): inf where a run diverged, nan where nothing was trained.
        margin: The relative margin, such as 0.05.

    Returns:
        The ends of the range. Beyond an end is a loss above the margin (`inside`), nothing that was tried (`edge`), or
        a value at which a run diverged (`diverged`). The last two are the last value within the margin: the range
        extends at least so far. nan and `none` if every run diverged or a loss is not positive, so that a relative
        margin has no meaning.
    """
    tried = ~np.isnan(losses)
    positions, losses = positions[tried], losses[tried]
    if not np.isfinite(losses).any() or losses.min() <= 0:
        return ToleratedRange(np.nan, np.nan, "none", "none")
    best = int(np.argmin(losses))
    limit = losses[best] * (1 + margin)
    ends = []
    for step in (-1, 1):
        last = best
        while 0 <= last + step < len(losses) and losses[last + step] <= limit:
            last += step
        beyond = last + step
        if not 0 <= beyond < len(losses):
            ends.append((float(positions[last]), "edge"))
        elif np.isinf(losses[beyond]):
            ends.append((float(positions[last]), "diverged"))
        else:
            share = np.log(limit / losses[last]) / np.log(losses[beyond] / losses[last])
            ends.append((float(positions[last] + share * (positions[beyond] - positions[last])), "inside"))
    (low, low_end), (high, high_end) = ends
    return ToleratedRange(low, high, low_end, high_end)
