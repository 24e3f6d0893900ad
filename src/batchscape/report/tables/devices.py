"""Table `devices`: time of an epoch by batch size and number of devices, and the speedup."""

import pandas as pd

GROUP = ["batch_size", "devices"]


def tabulate(epochs: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each batch size and number of devices.

    `epoch_seconds` is the median over the epochs, with the quartiles `epoch_seconds_q25` and `epoch_seconds_q75`; it is
    robust against warm-up and short loads of the machine. `speedup` is the median on one device over that on n (if one
    was not timed, the smallest number of timed devices has efficiency 1), `efficiency` the speedup over n.
    `other_cores` is the number of cores that other processes used meanwhile. If the machine does not have the devices,
    all of these are nan and `n_epochs` is 0.
    """
    groups = epochs.groupby(GROUP)
    rows = groups[["device", "processor", "cores", "other_cores"]].first()
    quartiles = groups["seconds"].quantile([0.25, 0.5, 0.75]).unstack()
    rows["epoch_seconds"], rows["epoch_seconds_q25"], rows["epoch_seconds_q75"] = (
        quartiles[level] for level in (0.5, 0.25, 0.75)
    )
    rows["n_epochs"] = groups["seconds"].count()
    rows = rows.reset_index()
    timed = rows.dropna(subset=["epoch_seconds"]).sort_values("devices").groupby("batch_size").first()
    alone = (timed["epoch_seconds"] * timed["devices"]).reindex(rows["batch_size"]).to_numpy()
    rows["speedup"] = alone / rows["epoch_seconds"]
    rows["efficiency"] = rows["speedup"] / rows["devices"]
    return rows
