"""Time per epoch and speedup by number of devices, one line per batch size."""

import pandas as pd
import plotnine as p9

from batchscape.report.figures import style

# Number of cores that other processes may use without a warning.
MAX_OTHER_CORES = 0.25
TIME, SPEEDUP = "Time per epoch (s)", "Speedup"


def draw(devices: pd.DataFrame) -> p9.ggplot:
    timed = devices.dropna(subset=["epoch_seconds"])
    if timed.empty:
        return style.empty_plot("No device count could be timed: this machine has fewer devices.")
    time = timed.assign(panel=TIME, value=timed["epoch_seconds"])
    time = time.assign(low=timed["epoch_seconds_q25"], high=timed["epoch_seconds_q75"])
    speedup = timed.assign(panel=SPEEDUP, value=timed["speedup"])
    data = pd.concat([time, speedup], ignore_index=True)
    panels = [TIME, SPEEDUP]
    data["panel"] = pd.Categorical(data["panel"], categories=panels, ordered=True)
    data["batch_size"] = style.as_batch_size_categories(data["batch_size"])
    counts = sorted(timed["devices"].unique())
    speedup_panel = pd.Categorical([SPEEDUP] * len(counts), categories=panels, ordered=True)
    ideal = pd.DataFrame({"devices": counts, "value": counts, "panel": speedup_panel})
    plot = (
        p9.ggplot(data, p9.aes("devices", "value", color="batch_size"))
        + p9.geom_linerange(p9.aes(ymin="low", ymax="high"), data.dropna(subset=["low"]), size=0.7, show_legend=False)
        + p9.geom_point(size=2)
        + p9.facet_wrap("panel", scales="free_y")
        + p9.scale_x_continuous(trans="log2", breaks=counts, minor_breaks=[], labels=style.tick_labels)
        + p9.scale_y_log10(labels=style.tick_labels)
        + style.batch_size_scales(devices["batch_size"])
        + style.theme()
    )
    if len(counts) > 1:
        dashed = p9.geom_line(p9.aes("devices", "value"), ideal, linetype="dashed", color="#888888", inherit_aes=False)
        plot = plot + dashed + p9.geom_line(size=0.8)
    return plot + p9.labs(
        title="Time per epoch on several devices",
        subtitle=f"Devices: {_describe_devices(devices)}{_describe_other_load(timed)}"
        + f"\nMedian and quartiles of {timed['n_epochs'].max()} epochs; dashed: linear speedup",
        x="Devices that share each batch",
        y="",
    )


def _describe_other_load(timed: pd.DataFrame) -> str:
    """Return a warning if other processes used the machine, because the times are then unreliable."""
    cores = timed["other_cores"].max()
    if not cores > MAX_OTHER_CORES:
        return ""
    return f"; unreliable, OTHER PROCESSES used up to {cores:.1f} cores: repeat on an idle machine"


def _describe_devices(devices: pd.DataFrame) -> str:
    """Return the devices that were timed, and the device counts that could not be."""
    first = devices.dropna(subset=["epoch_seconds"]).iloc[0]
    counts = sorted(set(devices.loc[devices["n_epochs"] == 0, "devices"]))
    not_timed = f"; {', '.join(map(str, counts))} could not be timed" if counts else ""
    if first["device"] != "cpu":
        return f"{first['device']}{not_timed}"
    cores = int(first["cores"])
    return f"single-threaded processes on {cores} core{'s' * (cores != 1)} of {first['processor']}{not_timed}"
