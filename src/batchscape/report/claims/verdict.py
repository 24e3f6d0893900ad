"""The verdict on a claim, and the number of seeds that would decide it."""

from typing import Literal

import numpy as np
from statsmodels.stats.power import TTestPower

from batchscape.report.claims.t_test import CONFIDENCE

POWER = 0.8
MAX_SEEDS = 1000

Direction = Literal["greater", "less", "equal", "not greater"]
"""What is claimed of an effect: that it is above or below 0, within the margin, or that it is not above the margin."""
Verdict = Literal["supported", "refuted", "no relevant difference", "undecided", "not tested"]
DECIDED: tuple[Verdict, ...] = ("supported", "refuted", "no relevant difference")


def verdict(low: float, high: float, equivalence_p_value: float, claimed: Direction, margin: float) -> Verdict:
    """Return the verdict on a claim about a measured effect.

    Equivalence comes first: an effect that is within the margin is `no relevant difference`, even if its interval
    excludes 0, because it is too small to matter.

    Args:
        low: Lower end of the 95 % confidence interval of the effect.
        high: Its upper end.
        equivalence_p_value: The p-value of the test of equivalence with this margin.
        claimed: What is claimed.
        margin: The largest effect that does not matter, above 0.

    Returns:
        For claims that the effect is greater or less than 0, `no relevant difference` if the test of equivalence
        rejects at 5 %; else `supported` if the interval lies on the claimed side of 0, and `refuted` if it lies on the
        other side. For claims that it is equal, `supported` if the test of equivalence rejects, `refuted` if the
        interval lies outside of the margin; `not greater` is also supported if the interval lies below 0, and not
        refuted by it. Else, and if the numbers are nan, `undecided`.
    """
    within, below, above = equivalence_p_value < 1 - CONFIDENCE, high < 0, low > 0
    if claimed == "equal":
        outside = high < -margin or low > margin
        return "supported" if within else "refuted" if outside else "undecided"
    if claimed == "not greater":
        return "supported" if within or below else "refuted" if low > margin else "undecided"
    if within:
        return "no relevant difference"
    if not (below or above):
        return "undecided"
    return "supported" if above == (claimed == "greater") else "refuted"


def seeds_needed(differences: np.ndarray, claimed: Direction, margin: float) -> str | None:
    """Return the smallest number of seeds that would decide a claim with a power of 80 %.

    This is the sample size of the paired t tests at the 5 % level, if mean and standard deviation of `differences` are
    the true ones. A claim is decided by the two-sided test of the effect (for claims of equality, of the effect beyond
    the margin), or by the test of equivalence, whichever needs fewer seeds.

    Args:
        differences: One difference per seed, shape (n,).
        claimed: What is claimed.
        margin: The largest effect that does not matter, above 0, in the unit of the differences.

    Returns:
        An integer as text, `more than 1000`, or None if there are fewer than two values.
    """
    if len(differences) < 2:
        return None
    mean, sd = abs(np.mean(differences)), np.std(differences, ddof=1)
    if sd == 0:
        return "2" if mean != margin else f"more than {MAX_SEEDS}"
    sizes = np.arange(2, MAX_SEEDS + 1)
    level = 1 - CONFIDENCE
    distance = mean - margin if claimed == "equal" else mean
    if claimed == "not greater" and np.mean(differences) > 0:
        distance = mean - margin
    # Of one side at half the level: the power of the other side is negligible, but overflows where the effect is large.
    power_of_difference = _power(distance / sd, sizes, level / 2)
    # Both one-sided tests must reject, which is at least as probable as this (Bonferroni's inequality).
    power_of_equivalence = sum(_power((margin + side * mean) / sd, sizes, level) for side in (-1, 1)) - 1
    sufficient = sizes[np.maximum(power_of_difference, power_of_equivalence) >= POWER]
    return str(sufficient[0]) if len(sufficient) else f"more than {MAX_SEEDS}"


def _power(effect: float, sizes: np.ndarray, level: float) -> np.ndarray:
    """Return the power of a one-sided t test of an effect in standard deviations, for each number of seeds."""
    if effect <= 0:
        return np.zeros(len(sizes))
    return TTestPower().power(effect, sizes, level, alternative="larger")
