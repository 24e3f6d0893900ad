"""The critical batch size over the examples seen, by branching, beside the noise scale."""

import numpy as np
import pandas as pd
import plotnine as p9

from batchscape.report.batch_warmup import grow_batch
from batchscape.report.figures import style

MEASURED, NOISE_SCALE, WARMUP = "critical batch size, by branching", "noise scale", "batch size warm-up"
COLORS = {MEASURED: "#222222", NOISE_SCALE: "#999999", WARMUP: "#222222"}
LINES = {MEASURED: "solid", NOISE_SCALE: "solid", WARMUP: "dashed"}


def draw(
    branches: pd.DataFrame,
    branching: pd.DataFrame,
    history: pd.DataFrame,
    batch_schedule: pd.DataFrame | None = None,
) -> p9.ggplot:
    """`branching` gives the points, `history` the noise scale of the same settings, `branches` the number of seeds.

    `batch_schedule` is given if runs follow the critical batch size; their batch size is drawn too.
    """
    points = branching.dropna(subset=["critical_batch"])
    noise = history[history["setting"].isin(branching["setting"]) & (history["status"] != "diverged")]
    noise = noise[np.isfinite(noise["noise_scale"]) & (noise["noise_scale"] > 0)]
    noise = noise.groupby(["setting", "examples"])["noise_scale"].agg(["mean", "size"]).reset_index()
    # After the first run of a setting ends, the mean would be that of other runs.
    noise = noise[noise["size"] == noise.groupby("setting")["size"].transform("max")]
    noise = noise.rename(columns={"mean": "noise_scale"}).drop(columns="size")
    seeds = style.describe_seeds(branching["n_seeds"], [])
    diverged = int(branches["n_diverged"].sum())
    not_within = f"; {diverged} diverged branches count as not within it" if diverged else ""
    tolerance = f"{100 * branching['tolerance'].iloc[0]:g} %"
    settings = [] if batch_schedule is None else batch_schedule["base_setting"]
    steps = pd.concat([_steps(points[points["setting"] == name], history) for name in settings] or [pd.DataFrame()])
    plot = _points(points, noise, steps) if len(points) else style.empty_plot("No run reached a point to branch from.")
    return plot + p9.labs(
        title="The critical batch size during training",
        subtitle=(
            f"The largest multiple of the batch size whose loss is within {tolerance}, mean over {seeds}, and its 95 % "
            f"interval{not_within}. Triangles are bounds: all multiples are within it, or none"
        ),
        x="Training examples seen",
        y="Batch size (examples)",
    )


def _steps(points: pd.DataFrame, history: pd.DataFrame) -> pd.DataFrame:
    """Return the corners of the batch size of a setting that follows the critical one, over the examples seen."""
    if points.empty:
        return pd.DataFrame()
    setting, size = points["setting"].iloc[0], points["batch_size"].iloc[0]
    runs = history[history["setting"] == setting]
    sizes = {runs["examples"].min(): size}
    sizes |= {examples: factor * size for examples, factor in grow_batch(points).items()}
    sizes[runs["examples"].max()] = max(sizes.values())
    return pd.DataFrame({"setting": setting, "examples": list(sizes), "value": list(sizes.values()), "what": WARMUP})


def _points(points: pd.DataFrame, noise: pd.DataFrame, steps: pd.DataFrame) -> p9.ggplot:
    measured = pd.DataFrame(
        {
            "setting": points["setting"],
            "examples": points["examples"],
            "value": points["critical_batch"],
            "low": points["critical_batch_ci95_low"].fillna(points["critical_batch"]),
            "high": points["critical_batch_ci95_high"].fillna(points["critical_batch"]),
            "edge": points["edge"],
            "what": MEASURED,
        }
    )
    lines = pd.concat([measured, noise.rename(columns={"noise_scale": "value"}).assign(what=NOISE_SCALE)])
    plot = (
        p9.ggplot(lines, p9.aes("examples", "value", color="what", linetype="what"))
        + p9.geom_line(p9.aes(group="what"), size=0.6)
        + p9.geom_errorbar(p9.aes(ymin="low", ymax="high"), measured, width=0.05, size=0.5, show_legend=False)
        + p9.geom_point(p9.aes(shape="edge"), measured, size=2.5, fill="white", show_legend=False)
        + p9.scale_shape_manual(values={"none": "o", "low": "v", "high": "^"})
        + p9.scale_x_log10(labels=style.tick_labels)
        + p9.scale_y_continuous(trans="log2", breaks=style.power_of_two_breaks, labels=style.tick_labels)
        + p9.scale_color_manual(values=COLORS, name=" ")
        + p9.scale_linetype_manual(values=LINES, name=" ")
        + style.theme()
    )
    if len(steps):
        plot += p9.geom_step(data=steps, size=0.8)
    if points["setting"].nunique() > 1:
        plot += p9.facet_wrap("setting")
    return plot
