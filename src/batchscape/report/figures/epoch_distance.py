"""How far the weights move in an epoch, and how much further with the small batch than with the large one."""

import pandas as pd
import plotnine as p9

from batchscape.report.figures import style


def draw(epoch_distance: pd.DataFrame, *, fixed_lr: float, large_batch: int, small_batch: int) -> p9.ggplot:
    """Means over seeds while all of them train; bands are ranges. The ratio is paired by seed."""
    rows = epoch_distance[epoch_distance["learning_rate"] == fixed_lr]
    everyone = rows.groupby("batch_size")["n_seeds"].transform("max")
    moves = rows[(rows["n_seeds"] == everyone) & (rows["n_seeds"] > 0)]
    if moves.empty:
        return style.nothing_to_draw()
    pairs = rows[(rows["batch_size"] == small_batch) & (rows["n_ratios"] > 0)]
    pairs = pairs[pairs["n_ratios"] == pairs["n_ratios"].max()]
    distance_name = "Epoch distance ‖Δθ‖"
    ratio_name = f"Ratio of batch {small_batch} to batch {large_batch}"
    data = pd.concat(
        [
            _panel(moves, "epoch_distance", distance_name),
            _panel(pairs, "ratio_to_large", ratio_name),
        ],
        ignore_index=True,
    )
    data["panel"] = pd.Categorical(data["panel"], categories=[distance_name, ratio_name], ordered=True)
    data = style.thinned(data, ["panel", "batch_size"])
    data["batch_size"] = style.as_batch_size(data["batch_size"])
    equal = pd.DataFrame({"panel": pd.Categorical([ratio_name], categories=data["panel"].cat.categories), "one": [1.0]})
    return (
        p9.ggplot(data, p9.aes("epoch", "mean", color="batch_size", fill="batch_size"))
        + p9.geom_hline(p9.aes(yintercept="one"), equal, linetype="dashed", color="#777777")
        + p9.geom_ribbon(p9.aes(ymin="min", ymax="max"), alpha=0.2, color="none")
        + p9.geom_line(size=0.7)
        + p9.facet_wrap("panel", scales="free_y")
        + p9.scale_x_log10(labels=style.decimals)
        + p9.scale_y_log10(labels=style.decimals)
        + style.batch_size_scales(epoch_distance["batch_size"])
        + p9.labs(
            title=f"How far the weights move in an epoch, {style.rate_name(fixed_lr)}",
            subtitle=f"Mean and range over {style.seeds_name(moves['n_seeds'], _first(rows)['n_diverged'])}; "
            "epochs within 5 % of one another are averaged; dashed: no difference",
            x="Epoch",
            y="",
        )
        + style.theme()
    )


def _panel(rows: pd.DataFrame, column: str, name: str) -> pd.DataFrame:
    statistics = {statistic: rows[f"{column}_{statistic}"] for statistic in ("mean", "min", "max")}
    return rows[["batch_size", "epoch"]].assign(panel=name, **statistics)


def _first(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["epoch"] == 1]
