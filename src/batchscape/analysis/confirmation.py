"""Status, losses and cost of the runs of the confirmation."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from batchscape.analysis.collect import collect
from batchscape.analysis.runs import analyze
from batchscape.config.confirmation import Finalists


def collect_confirmation(directories: Iterable[Path], finalists: Finalists) -> pd.DataFrame:
    """Return the rows of the analysis `runs` for the runs of the confirmation, with the setting of each finalist.

    Args:
        directories: The directories of the runs, named by rank and seed, such as `rank1-seed1000`.
        finalists: The settings by rank.

    Returns:
        One row for each run. The first column is `rank`; `diverged_in_grid` is 1 if a run of the grid diverged.
    """
    rows = collect(directories, analyze)
    ranks = rows["setting"].str.removeprefix("rank").astype(int)
    by_rank = dict(enumerate(finalists.finalists, 1))
    rows["setting"] = [by_rank[rank].setting for rank in ranks]
    rows["diverged_in_grid"] = [int(by_rank[rank].diverged) for rank in ranks]
    rows.insert(0, "rank", ranks)
    return rows.sort_values(["rank", "seed"], kind="stable", ignore_index=True)
