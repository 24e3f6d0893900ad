"""Summary statistics over the seeds of a setting."""

from collections.abc import Sequence

import pandas as pd


def over_seeds(frame: pd.DataFrame, by: Sequence[str], values: Sequence[str]) -> pd.DataFrame:
    """Summarize rows of runs over seeds.

    Args:
        frame: Rows of runs, with the columns `by`, `values` and `status`.
        by: Columns to group by.
        values: Columns to summarize.

    Returns:
        One row for each group, sorted: `<value>_mean` and `<value>_sd` (sample standard deviation, nan for one seed) of
        each value over the runs that did not diverge, then `<value>_min` and `<value>_max`, `n_seeds` (the number of
        these runs) and `n_diverged`. A group in which all runs diverged has a row of nan with 0 seeds.
    """
    diverged = frame["status"].eq("diverged")
    counts = diverged.groupby([frame[key] for key in by]).agg(["size", "sum"])
    completed = frame[~diverged].groupby(list(by))
    columns = {}
    for statistics in ({"mean": "mean", "sd": "std"}, {"min": "min", "max": "max"}):
        for value in values:
            for suffix, statistic in statistics.items():
                columns[f"{value}_{suffix}"] = completed[value].agg(statistic)
    result = pd.DataFrame(columns).reindex(counts.index)
    result["n_seeds"] = counts["size"] - counts["sum"]
    result["n_diverged"] = counts["sum"]
    return result.reset_index()
