"""Table `epoch_distance`: epoch distance by epoch, and its ratio to that of the large batch size, over seeds."""

import numpy as np
import pandas as pd

from batchscape.report.settings import SETTING_COLUMNS
from batchscape.report.tables.over_seeds import over_seeds


def tabulate(epoch_distance: pd.DataFrame, large_batch_size: int) -> pd.DataFrame:
    """Return one row for each setting and epoch.

    `ratio_to_large_*` is the epoch distance of a run over that of the large-batch run of the same learning rate,
    warm-up, seed and epoch: paired, then summarized over seeds. It is nan if there is no such run, as at most tuned
    rates, after the last epoch of that run, and where the two distances are those of different numbers of epochs, as
    if evaluations follow a number of steps. `n_ratios` is the number of pairs.
    """
    since_last = epoch_distance.groupby(["setting", "seed"])["epoch"].diff().fillna(epoch_distance["epoch"])
    epoch_distance = epoch_distance.assign(
        schedule=epoch_distance["setting"].str.partition("-")[2], since_last=since_last
    )
    pair = ["learning_rate", "schedule", "seed", "epoch"]
    large = epoch_distance[
        (epoch_distance["batch_size"] == large_batch_size) & (epoch_distance["status"] != "diverged")
    ]
    reference = large[[*pair, "epoch_distance", "since_last"]]
    paired = epoch_distance.merge(reference, on=pair, how="left", suffixes=("", "_large"))
    ratio = paired["epoch_distance"] / paired["epoch_distance_large"]
    paired["ratio_to_large"] = ratio.where(np.isclose(paired["since_last"], paired["since_last_large"], rtol=0.01))
    keys = [*SETTING_COLUMNS, "epoch"]
    table = over_seeds(paired, keys, ["epoch_distance", "ratio_to_large"])
    usable = paired["ratio_to_large"].notna() & paired["status"].ne("diverged")
    table["n_ratios"] = usable.groupby([paired[key] for key in keys]).sum().to_numpy()
    return table
