"""How far the weights move in an epoch, and how much further with the small batch than with the large one."""

import pandas as pd
import plotnine as p9

from batchscape.report.figures import style
from batchscape.report.figures.by_epoch import by_epoch, panel, seeds_name, while_all_train


def draw(epoch_distance: pd.DataFrame, *, fixed_lr: float, large_batch: int, small_batch: int) -> p9.ggplot:
    """The epoch distance of each batch size, and the ratio of two of them, paired by seed."""
    chosen = epoch_distance[epoch_distance["learning_rate"] == fixed_lr]
    moves = while_all_train(chosen)
    if moves.empty:
        return style.nothing_to_draw()
    pairs = chosen[(chosen["batch_size"] == small_batch) & (chosen["n_ratios"] > 0)]
    pairs = pairs[pairs["n_ratios"] == pairs["n_ratios"].max()]
    ratio_name = f"Ratio of batch {small_batch} to batch {large_batch}"
    data = pd.concat(
        [panel(moves, "epoch_distance", "Epoch distance ‖Δθ‖"), panel(pairs, "ratio_to_large", ratio_name)],
        ignore_index=True,
    )
    no_difference = pd.DataFrame({"panel": [ratio_name], "one": [1.0]}) if len(pairs) else None
    plot = by_epoch(data, epoch_distance["batch_size"], scales="free_y")
    if no_difference is not None:
        plot += p9.geom_hline(p9.aes(yintercept="one"), no_difference, linetype="dashed", color="#777777")
    return plot + p9.labs(
        title=f"How far the weights move in an epoch, {style.rate_name(fixed_lr)}",
        subtitle=f"{seeds_name(chosen)}; epochs within 5 % of one another are averaged; dashed: no difference",
        x="Epoch",
        y="",
    )
