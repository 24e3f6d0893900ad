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

    The best of a few values is quantized; the vertex is not. `choose_window` chooses the losses, `fit_vertex` fits.

    Args:
        positions: Logarithms of the tried values, ascending, shape (n,).
        losses: Mean loss at each, shape (n,): inf where a run diverged, nan where nothing was trained.

    Returns:
        The vertex. It is not inside if the best value is the lowest or the highest that was tried, or if there are
        fewer than three losses to fit: then it is the best value. nan if every run diverged.
    """
    if not np.isfinite(losses).any():
        return Optimum(np.nan, False)
    window = choose_window(positions, losses)
    if not len(window):
        return Optimum(float(positions[np.nanargmin(losses)]), False)
    return Optimum(fit_vertex(positions[window], losses[window]), True)


def choose_window(positions: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """Return the indices of the values around the best one at which the loss is taken for a parabola.

    These are the values within a factor of 4 of the best one whose loss is at most twice the lowest, or if they are
    fewer than three, the best value and its neighbors.

    Args:
        positions: Logarithms of the tried values, ascending, shape (n,).
        losses: Mean loss at each, shape (n,): inf where a run diverged, nan where nothing was trained.

    Returns:
        At least three indices, or none if the best value is the lowest or the highest that was tried, or if there are
        not enough finite losses.
    """
    none = np.empty(0, dtype=int)
    tried = np.flatnonzero(~np.isnan(losses))
    finite = np.isfinite(losses[tried])
    if not finite.any():
        return none
    best = int(np.argmin(losses[tried]))
    if best in (0, len(tried) - 1):
        return none
    places, heights = positions[tried], losses[tried]
    near = finite & (np.abs(places - places[best]) <= np.log(WINDOW) + ROUNDING)
    if heights[finite].min() > 0:
        near &= heights <= MAX_LOSS_RATIO * heights[best]
    if near.sum() < 3:
        near = finite & (np.abs(np.arange(len(tried)) - best) <= 1)
    return tried[near] if near.sum() >= 3 else none


def fit_vertex(positions: np.ndarray, losses: np.ndarray) -> float:
    """Return the lowest point of a parabola that is fitted by least squares and not extrapolated.

    Args:
        positions: Logarithms of the values, ascending, shape (n,).
        losses: Mean loss at each, shape (n,). Their logarithms are fitted if all are positive.

    Returns:
        The position; that of the lowest loss if the parabola has no minimum. nan if fewer than three losses are finite.
    """
    finite = np.isfinite(losses)
    positions, losses = positions[finite], losses[finite]
    if len(losses) < 3:
        return np.nan
    best = positions[np.argmin(losses)]
    curvature, slope, _ = np.polyfit(positions - best, np.log(losses) if losses.min() > 0 else losses, 2)
    if curvature <= 0:
        return float(best)
    return float(np.clip(best - slope / (2 * curvature), positions[0], positions[-1]))


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
