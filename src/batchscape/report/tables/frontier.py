"""Table `frontier`: time against examples to each target, and what a larger batch buys."""

import numpy as np
import pandas as pd

from batchscape.report.tables.over_seeds import over_seeds
from batchscape.report.tables.regimes import ratio_per_doubling
from batchscape.report.targets import TARGET_COLUMNS, runs_at_best_settings, split_by_target

QUANTITIES = ("steps", "examples", "time")
COLUMNS = [
    *TARGET_COLUMNS,
    *("batch_size", "learning_rate", "setting"),
    *(f"{name}_{part}" for name in QUANTITIES for part in ("mean", "sd")),
    *("time_unit", "is_pareto"),
    *(f"{name}_ratio{part}" for name in QUANTITIES for part in ("", "_ci95_low", "_ci95_high")),
    *("n_seeds", "n_missed", "n_diverged"),
]


def tabulate(runs_to_target: pd.DataFrame, steps_to_target: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each target and batch size, at its best setting for the target.

    Time is CPU time if all runs trained on a CPU, where other jobs on the same cores increase wall time; else it is
    wall time. A batch size is on the Pareto front, `is_pareto`, if no other takes at most its mean time and at most its
    mean number of examples. `<quantity>_ratio` is the factor for a doubling of the batch size from the next smaller
    one, paired by seed, with its interval.

    Args:
        runs_to_target: The table of that name.
        steps_to_target: The table of that name.
        runs: The table `runs`, which says where they trained.
    """
    on_cpu = runs["device"].eq("cpu").all()
    times = runs_to_target["cpu_seconds" if on_cpu else "seconds"]
    # By order: the value of a target may be nan.
    parts = zip(split_by_target(runs_to_target.assign(time=times)), split_by_target(steps_to_target), strict=True)
    rows = [row for reached, settings in parts for row in _describe_target(reached, settings)]
    return pd.DataFrame(rows).assign(time_unit="CPU s" if on_cpu else "s").reindex(columns=COLUMNS)


def is_on_front(costs: np.ndarray) -> np.ndarray:
    """Return which points are on the Pareto front.

    Args:
        costs: Shape (n, costs); less is better.

    Returns:
        Shape (n,): whether no other point is at most as high in all costs and lower in one.
    """
    no_higher = np.all(costs[None] <= costs[:, None], axis=-1)
    lower = np.any(costs[None] < costs[:, None], axis=-1)
    return np.asarray(~np.any(no_higher & lower, axis=1))


def _describe_target(runs_to_target: pd.DataFrame, steps_to_target: pd.DataFrame) -> list[dict[str, object]]:
    best = steps_to_target[steps_to_target["is_best"] == 1].sort_values("batch_size")
    if best.empty:
        return []
    runs = runs_at_best_settings(runs_to_target, steps_to_target)
    table = over_seeds(runs, ["batch_size"], list(QUANTITIES)).set_index("batch_size")
    table["is_pareto"] = is_on_front(table[["time_mean", "examples_mean"]].to_numpy()).astype(int)
    rows = []
    for index, (_, setting) in enumerate(best.iterrows()):
        size = setting["batch_size"]
        columns = [f"{name}_{part}" for name in QUANTITIES for part in ("mean", "sd")]
        row = setting[[*TARGET_COLUMNS, "batch_size", "learning_rate", "setting"]].to_dict()
        row |= table.loc[size, [*columns, "is_pareto"]].to_dict()
        row["is_pareto"] = int(row["is_pareto"])
        row |= setting[["n_seeds", "n_missed", "n_diverged"]].to_dict()
        for name in QUANTITIES if index else ():
            ratio, _ = ratio_per_doubling(runs, name, best["batch_size"].iloc[index - 1], size)
            row |= {
                f"{name}_ratio": ratio.value,
                f"{name}_ratio_ci95_low": ratio.ci95_low,
                f"{name}_ratio_ci95_high": ratio.ci95_high,
            }
        rows.append(row)
    return rows
