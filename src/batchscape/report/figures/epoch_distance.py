"""How far the weights move in an epoch, and the ratio of the small batch to the large batch."""

import pandas as pd
import plotnine as p9

from batchscape.report.figures import style
from batchscape.report.figures.by_epoch import epochs_with_all_seeds, panel_rows, plot_by_epoch, subtitle
from batchscape.report.settings import at_learning_rate


def draw(
    epoch_distance: pd.DataFrame, *, fixed_learning_rate: float, large_batch_size: int, small_batch_size: int
) -> p9.ggplot:
    """Return the epoch distance of each batch size, and the ratio of two of them, paired by seed."""
    chosen = at_learning_rate(epoch_distance, fixed_learning_rate)
    pairs = chosen[(chosen["batch_size"] == small_batch_size) & (chosen["n_ratios"] > 0)]
    pairs = pairs[pairs["n_ratios"] == pairs["n_ratios"].max()]
    ratio_name = f"Ratio of batch {small_batch_size} to batch {large_batch_size}"
    moves = panel_rows(epochs_with_all_seeds(chosen), "epoch_distance", "Epoch distance ‖Δθ‖")
    ratios = panel_rows(pairs, "ratio_to_large", ratio_name)
    plot = plot_by_epoch(pd.concat([moves, ratios], ignore_index=True), epoch_distance["batch_size"], scales="free_y")
    if len(ratios):
        no_difference = pd.DataFrame({"panel": [ratio_name], "one": [1.0]})
        plot += p9.geom_hline(p9.aes(yintercept="one"), no_difference, linetype="dashed", color="#777777")
    return plot + p9.labs(
        title=f"How far the weights move in an epoch, {style.learning_rate_label(fixed_learning_rate)}",
        subtitle=subtitle(chosen) + "\nDashed: no difference",
        x="Epoch",
        y="",
    )
