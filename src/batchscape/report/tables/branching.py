"""Table `branching`: the critical batch size at points in the training, measured by branching."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from batchscape.report.claims.t_test import t_test
from batchscape.report.settings import SETTING_COLUMNS
from batchscape.report.tables.branches import add_excess


def tabulate(branching: pd.DataFrame, *, branching_tolerance: float) -> pd.DataFrame:
    """Return one row for each setting and point, in the order of training.

    The critical batch size is the largest multiple of the batch size for which it and all smaller ones have a mean
    excess of the loss, over seeds, within the tolerance (Merrill et al. 2025). The ends of its interval are the same
    for the upper and the lower end of the 95 % t interval of the excess.
    """
    tables = []
    for keys, point in add_excess(branching).groupby([*SETTING_COLUMNS, "point"], sort=False):
        reached = point[point["excess"].notna()]
        factors = sorted(point["factor"].unique())
        tests = [_test(reached.loc[reached["factor"] == factor, "excess"].to_numpy()) for factor in factors]
        mean, upper, lower = (
            keys[0] * _largest(factors, [test[end] <= branching_tolerance for test in tests]) for end in range(3)
        )
        has_interval = np.isfinite(tests[0][1])
        tables.append(
            {
                **dict(zip([*SETTING_COLUMNS, "point"], keys, strict=True)),
                "examples": reached["examples"].mean(),
                "epoch": reached["epoch"].mean(),
                "critical_batch": mean,
                "critical_batch_ci95_low": upper if has_interval else np.nan,
                "critical_batch_ci95_high": lower if has_interval else np.nan,
                "edge": _edge(mean / keys[0], factors),
                "tolerance": branching_tolerance,
                "n_seeds": reached["run"].nunique(),
                "n_not_reached": point.loc[point["branch_status"] == "not reached", "run"].nunique(),
                "n_diverged": int((point["branch_status"] == "diverged").sum()),
            }
        )
    table = pd.DataFrame(tables)
    return table.sort_values([*SETTING_COLUMNS, "examples"], kind="stable", ignore_index=True)


def _test(excess: np.ndarray) -> tuple[float, float, float]:
    """Return mean, upper and lower end of the 95 % interval of the excess of a factor; infinite if one diverged."""
    if np.isinf(excess).any():
        return np.inf, np.inf, np.inf
    test = t_test(excess)
    return test.mean, test.ci95_high, test.ci95_low


def _largest(factors: Iterable[int], within: Iterable[bool]) -> float:
    """Return the last factor before the first that is not within the tolerance; nan if that is the first one."""
    largest = np.nan
    for factor, is_within in zip(factors, within, strict=True):
        if not is_within:
            break
        largest = factor
    return largest


def _edge(factor: float, factors: list[int]) -> str:
    """Return at which end of the factors the critical one is."""
    if np.isnan(factor):
        return "none"
    return {factors[0]: "low", factors[-1]: "high"}.get(int(factor), "none")
