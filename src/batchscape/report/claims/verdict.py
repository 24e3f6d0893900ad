"""The verdict on a claim, and the number of seeds that would decide it."""

from typing import Literal

import numpy as np
from statsmodels.stats.power import TTestPower

from batchscape.report.claims.t_test import CONFIDENCE

POWER = 0.8
MAX_SEEDS = 1000

Direction = Literal["greater", "less"]
Verdict = Literal["supported", "refuted", "undecided", "not tested"]


def verdict(low: float, high: float, claimed: Direction) -> Verdict:
    """Return the verdict on a claim about the sign of a measured effect, from the effect's confidence interval.

    Returns:
        `supported` if the interval lies on the claimed side of 0, `refuted` if it lies on the other side, `undecided`
        if it contains 0 or is nan.
    """
    below, above = high < 0, low > 0
    if not (below or above):
        return "undecided"
    return "supported" if above == (claimed == "greater") else "refuted"


def seeds_needed(differences: np.ndarray) -> str | None:
    """Return the smallest number of seeds that would decide a claim with a power of 80 %.

    This is the sample size of the two-sided paired t test at the 5 % level, if mean and standard deviation of
    `differences` are the true ones.

    Args:
        differences: One difference per seed, shape (n,).

    Returns:
        An integer as text, `more than 1000`, or None if there are fewer than two values.
    """
    if len(differences) < 2:
        return None
    mean, sd = abs(np.mean(differences)), np.std(differences, ddof=1)
    if mean == 0:
        return f"more than {MAX_SEEDS}"
    if sd == 0:
        return "2"
    sizes = np.arange(2, MAX_SEEDS + 1)
    # Of one side at half the level: the power of the other side is negligible, but overflows where the effect is large.
    power = TTestPower().power(mean / sd, sizes, (1 - CONFIDENCE) / 2, alternative="larger")
    sufficient = sizes[power >= POWER]
    return str(sufficient[0]) if len(sufficient) else f"more than {MAX_SEEDS}"
