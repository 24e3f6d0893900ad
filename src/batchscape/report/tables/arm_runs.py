"""Table `arm_runs`: the quantities by which arms are compared, for each run."""

from collections.abc import Sequence

import pandas as pd

from batchscape.analysis.distance import ALL_LAYERS
from batchscape.report.settings import SETTING_COLUMNS

LOSSES = ("min_train_loss", "best_validation_loss")
COSTS = ("best_epoch", "epoch_cpu_seconds", "cpu_seconds_to_best")


def tabulate(
    runs: pd.DataFrame,
    distance: pd.DataFrame,
    update_norms: pd.DataFrame,
    sharpness: pd.DataFrame | None = None,
    *,
    arms: Sequence[tuple[str, Sequence[str]]],
    metrics: Sequence[str],
) -> pd.DataFrame:
    """Return one row for each arm, run and quantity, with its `value`.

    `arms` are the names of the arms with their settings; a run that several arms share has rows in each. The
    quantities are the losses, the metrics at the best epoch and the costs of `runs`, `distance` (over all layers),
    `update_norm` (the median of the run's updates) and, if it was analyzed, `sharpness`: Keskar's φ in the full space
    with the largest ε, at `best`.
    """
    at_best = [f"validation_{name}_at_best" for name in metrics]
    quantities = {name: runs[name] for name in (*LOSSES, *at_best, *COSTS)}
    lead = [*SETTING_COLUMNS, "seed", "status"]
    frames = [runs[["run", *lead]].assign(quantity=name, value=values) for name, values in quantities.items()]
    distances = distance[distance["layer"] == ALL_LAYERS].rename(columns={"distance": "value"})
    median = update_norms[update_norms["percentile"] == 50].rename(columns={"update_norm": "value"})
    frames += [distances.assign(quantity="distance"), median.assign(quantity="update_norm")]
    if sharpness is not None:
        rows = sharpness[(sharpness["measure"] == "keskar") & (sharpness["checkpoint"] == "best")]
        frames.append(rows[rows["radius"] == rows["radius"].max()].assign(quantity="sharpness"))
    table = pd.concat(frames, ignore_index=True)[[*lead, "quantity", "value"]]
    by_arm = [table[table["setting"].isin(settings)].assign(arm=arm) for arm, settings in arms]
    return pd.concat(by_arm, ignore_index=True)[["arm", *table.columns]]
