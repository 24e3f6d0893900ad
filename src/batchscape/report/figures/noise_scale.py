"""The gradient noise scale and the norm of the full gradient, by epoch at the fixed learning rate."""

import numpy as np
import pandas as pd
import plotnine as p9

from batchscape.report.figures import style
from batchscape.report.figures.by_epoch import by_epoch, panel, while_all_train
from batchscape.report.settings import at_rate

SCALE = "Noise scale tr(Σ)/‖G‖² (examples)"
NORM = "Gradient norm ‖G‖ (nats per unit)"


def draw(noise_scale: pd.DataFrame, *, fixed_learning_rate: float) -> p9.ggplot:
    chosen = at_rate(noise_scale, fixed_learning_rate)
    rows = while_all_train(chosen)
    data = pd.concat([panel(rows, "noise_scale", SCALE), panel(rows, "gradient_norm", NORM)])
    plot = by_epoch(data, noise_scale["batch_size"], scales="free_y")
    if np.isfinite(data["mean"]).any():
        sizes = data[data["panel"] == SCALE].drop_duplicates("batch_size")
        sizes = sizes.assign(
            panel=pd.Categorical(sizes["panel"], categories=[SCALE, NORM], ordered=True),
            size=sizes["batch_size"],
            batch_size=style.as_batch_size(sizes["batch_size"]),
        )
        lines = p9.aes(yintercept="size", color="batch_size")
        plot += p9.geom_hline(lines, sizes, linetype="dashed", size=0.4, show_legend=False)
        plot += p9.geom_point(size=1.6, show_legend=False)
    first = chosen[chosen["epoch"] == 1]
    seeds = style.seeds_name(first["n_seeds"], first["n_diverged"])
    return plot + p9.labs(
        title=f"Gradient noise during training, {style.rate_name(fixed_learning_rate)}",
        subtitle=style.wrapped(f"Mean and range over {seeds}, after epochs 1, 2, 4, 8, …, while all train")
        + "\n"
        + style.wrapped(
            "Dashed: the batch sizes; in a batch much smaller than the noise scale, noise outweighs the gradient"
        ),
        x="Epoch",
        y="",
    )
