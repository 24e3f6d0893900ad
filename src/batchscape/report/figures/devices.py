"""Time of an epoch and speed-up by number of devices, one line a batch size."""

import pandas as pd
import plotnine as p9

from batchscape.report.figures import style

# Cores that other processes may take without a word.
BUSY = 0.25
TIME, SPEED = "Time of an epoch (s)", "Speed-up"


def draw(devices: pd.DataFrame) -> p9.ggplot:
    timed = devices.dropna(subset=["epoch_seconds"])
    if timed.empty:
        return style.empty_plot("This machine has none of the numbers of devices that were to be timed.")
    time = timed.assign(panel=TIME, value=timed["epoch_seconds"])
    time = time.assign(low=timed["epoch_seconds_q25"], high=timed["epoch_seconds_q75"])
    speed = timed.assign(panel=SPEED, value=timed["speedup"])
    data = pd.concat([time, speed], ignore_index=True)
    panels = [TIME, SPEED]
    data["panel"] = pd.Categorical(data["panel"], categories=panels, ordered=True)
    data["batch_size"] = style.as_batch_size_categories(data["batch_size"])
    counts = sorted(timed["devices"].unique())
    speed_panel = pd.Categorical([SPEED] * len(counts), categories=panels, ordered=True)
    ideal = pd.DataFrame({"devices": counts, "value": counts, "panel": speed_panel})
    plot = (
        p9.ggplot(data, p9.aes("devices", "value", color="batch_size"))
        + p9.geom_linerange(p9.aes(ymin="low", ymax="high"), data.dropna(subset=["low"]), size=0.7, show_legend=False)
        + p9.geom_point(size=2)
        + p9.facet_wrap("panel", scales="free_y")
        + p9.scale_x_continuous(trans="log2", breaks=counts, minor_breaks=None, labels=style.tick_labels)
        + p9.scale_y_continuous(trans="log2", labels=style.tick_labels)
        + style.batch_size_scales(devices["batch_size"])
        + style.theme()
    )
    if len(counts) > 1:
        dashed = p9.geom_line(p9.aes("devices", "value"), ideal, linetype="dashed", color="#888888", inherit_aes=False)
        plot = plot + dashed + p9.geom_line(size=0.8)
    return plot + p9.labs(
        title="Time of an epoch on several devices",
        subtitle=style.wrap(f"Devices: {_what_they_were(devices)}{_disturbed(timed)}")
        + f"\nMedian and quartiles of {timed['n_epochs'].max()} epochs; dashed: n devices are n times as fast",
        x="Devices that share each batch",
        y="",
    )


def _disturbed(timed: pd.DataFrame) -> str:
    """Say if other work on the machine took a notable part of it, for then the times are not to be trusted."""
    most = timed["other_cores"].max()
    return f"; OTHER WORK took up to {most:.1f} cores meanwhile: time again on an idle machine" if most > BUSY else ""


def _what_they_were(devices: pd.DataFrame) -> str:
    """Say what the devices were that were timed, and how many could not be."""
    first = devices.dropna(subset=["epoch_seconds"]).iloc[0]
    missing = sorted(set(devices.loc[devices["n_epochs"] == 0, "devices"]))
    lacking = f"; {', '.join(map(str, missing))} could not be timed" if missing else ""
    if first["device"] != "cpu":
        return f"{first['device']}{lacking}"
    cores = int(first["cores"])
    return f"CPU processes of one thread on {cores} core{'s' * (cores != 1)} of {first['processor']}{lacking}"
