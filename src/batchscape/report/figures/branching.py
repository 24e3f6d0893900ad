"""The critical batch size over the examples seen, by branching, beside the noise scale."""

import numpy as np
import pandas as pd
import plotnine as p9

from batchscape.report.figures import style

MEASURED, NOISE_SCALE = "critical batch size, by branching", "noise scale"


def draw(branches: pd.DataFrame, branching: pd.DataFrame, history: pd.DataFrame) -> p9.ggplot:
    """`branching` gives the points, `history` the noise scale of the same settings, `branches` the number of seeds."""
    points = branching.dropna(subset=["critical_batch"])
    noise = history[history["setting"].isin(branching["setting"]) & (history["status"] != "diverged")]
    noise = noise[np.isfinite(noise["noise_scale"]) & (noise["noise_scale"] > 0)]
    noise = noise.groupby(["setting", "examples"], as_index=False)["noise_scale"].mean()
    seeds = style.describe_seeds(branching["n_seeds"], [])
    diverged = int(branches["n_diverged"].sum())
    not_within = f"; {diverged} diverged branches count as not within it" if diverged else ""
    tolerance = f"{100 * branching['tolerance'].iloc[0]:g} %"
    plot = _points(points, noise) if len(points) else style.empty_plot("No run reached a point to branch from.")
    return plot + p9.labs(
        title="The critical batch size during training",
        subtitle=style.wrap(
            f"The largest multiple of the batch size whose loss is within {tolerance}, mean over {seeds}, and its 95 % "
            f"interval{not_within}. Triangles are bounds: all multiples are within it, or none"
        ),
        x="Training examples seen",
        y="Batch size (examples)",
    )


def _points(points: pd.DataFrame, noise: pd.DataFrame) -> p9.ggplot:
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
        p9.ggplot(lines, p9.aes("examples", "value", color="what"))
        + p9.geom_line(p9.aes(group="what"), size=0.6)
        + p9.geom_errorbar(p9.aes(ymin="low", ymax="high"), measured, width=0.05, size=0.5)
        + p9.geom_point(p9.aes(shape="edge"), measured, size=2.5, fill="white", show_legend={"shape": False})
        + p9.scale_shape_manual(values={"none": "o", "low": "v", "high": "^"})
        + p9.scale_x_log10(labels=style.tick_labels)
        + p9.scale_y_log10(labels=style.tick_labels)
        + p9.scale_color_manual(values={MEASURED: "#D55E00", NOISE_SCALE: "#0072B2"}, name=" ")
        + style.theme()
    )
    if points["setting"].nunique() > 1:
        plot += p9.facet_wrap("setting")
    return plot
