"""A batch size warm-up: the stages that follow from measured critical batch sizes."""

import pandas as pd

from batchscape.config.branching import RATE_EXPONENTS
from batchscape.config.budget import Warmup
from batchscape.config.stages import StageConfig, Stages


def grow_batch(branching: pd.DataFrame) -> dict[int, int]:
    """Return how the batch size of a run follows the measured critical one.

    It begins with that of the run, and at each point it grows to the critical one there, if that is larger (batch size
    warm-up, Merrill et al. 2025). It never shrinks: where the critical batch size falls, the batch size stays. It stays
    too at a point that no run reached.

    Args:
        branching: The rows of the table `branching` of one setting.

    Returns:
        The multiples of the batch size of the run, above 1 and ascending, by the number of examples from which on they
        are used. Empty if the critical batch size is nowhere above the batch size.
    """
    factors: dict[int, int] = {}
    for row in branching.dropna(subset=["critical_batch"]).sort_values("examples", kind="stable").itertuples():
        factor = round(row.critical_batch / row.batch_size)
        if factor > max(factors.values(), default=1):
            factors[round(row.examples)] = factor
    return factors


def choose_stages(branching: pd.DataFrame, rule: str) -> Stages:
    """Return the stages of a run whose batch size follows the measured critical one, see `grow_batch`.

    Args:
        branching: The rows of the table `branching` of one setting.
        rule: How the learning rate follows the batch size, as in the branches (`branching.rule`).
    """
    return tuple(
        StageConfig(
            start=Warmup(examples=examples),
            batch_size_factor=factor,
            learning_rate_factor=float(factor ** RATE_EXPONENTS[rule]),
        )
        for examples, factor in grow_batch(branching).items()
    )
