"""Mean, spread and number over the seeds of a setting."""

from collections.abc import Sequence

import pandas as pd


def over_seeds(frame: pd.DataFrame, by: Sequence[str], values: Sequence[str]) -> pd.DataFrame:
    """Summarise per-run rows over seeds.

    `frame` has the columns `by`, `values` and `status`. Return one row for each combination of `by`, sorted,
    with `<value>_mean`, `<value>_sd` (sample standard deviation, nan for one seed), `<value>_min` and `<value>_max`
    of each value over the runs that did not diverge, `n_seeds` (how many these are), and `n_diverged`.
    A setting in which all runs diverged keeps its row: nan, 0 seeds.
    """
    diverged = frame["status"].eq("diverged")
    counts = diverged.groupby([frame[key] for key in by]).agg(["size", "sum"])
    whole = frame[~diverged].groupby(list(by))
    columns = {}
    for statistics in ({"mean": "mean", "sd": "std"}, {"min": "min", "max": "max"}):
        for value in values:
            for suffix, statistic in statistics.items():
                columns[f"{value}_{suffix}"] = whole[value].agg(statistic)
    result = pd.DataFrame(columns).reindex(counts.index)
    result["n_seeds"] = counts["size"] - counts["sum"]
    result["n_diverged"] = counts["sum"]
    return result.reset_index()
