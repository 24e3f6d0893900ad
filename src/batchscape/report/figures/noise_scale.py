"""The gradient noise scale and the norm of the full gradient by epoch, at the fixed learning rate."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotnine as p9

from batchscape.report.figures import style
from batchscape.report.figures.by_epoch import epochs_with_all_seeds, first_evaluations, panel_rows, plot_by_epoch
from batchscape.report.measures import Measures, add_unit
from batchscape.report.settings import at_learning_rate

SCALE = "Noise scale tr(Σ)/‖G‖² (examples)"


def draw(noise_scale: pd.DataFrame, *, fixed_learning_rate: float, measures: Mapping[str, Any]) -> p9.ggplot:
    norm = add_unit("Gradient norm ‖G‖", Measures.from_settings(measures).per_weight())
    chosen = at_learning_rate(noise_scale, fixed_learning_rate)
    rows = epochs_with_all_seeds(chosen)
    data = pd.concat([panel_rows(rows, "noise_scale", SCALE), panel_rows(rows, "gradient_norm", norm)])
    plot = plot_by_epoch(data, noise_scale["batch_size"], scales="free_y")
    if np.isfinite(data["mean"]).any():
        sizes = data[data["panel"] == SCALE].drop_duplicates("batch_size")
        sizes = sizes.assign(
            panel=pd.Categorical(sizes["panel"], categories=[SCALE, norm], ordered=True),
            size=sizes["batch_size"],
            batch_size=style.as_batch_size_categories(sizes["batch_size"]),
        )
        lines = p9.aes(yintercept="size", color="batch_size")
        plot += p9.geom_hline(lines, sizes, linetype="dashed", size=0.4, show_legend=False)
        plot += p9.geom_point(size=1.6, show_legend=False)
    first = first_evaluations(chosen)
    seeds = style.describe_seeds(first["n_seeds"], first["n_diverged"])
    return plot + p9.labs(
        title=f"Gradient noise during training, {style.learning_rate_label(fixed_learning_rate)}",
        subtitle=f"Mean and range over {seeds}, after epochs 1, 2, 4, 8, …, while all of them train"
        "\nDashed: the batch sizes; in a batch much smaller than the noise scale, noise exceeds the signal",
        x="Epoch",
        y="",
    )
