"""Steps and epochs to the first target by batch size, at the best learning rate, with the critical batch size."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotnine as p9

from batchscape.report.figures import style
from batchscape.report.measures import Measures, capitalize
from batchscape.report.numbers import format_interval, format_number, join_truncated
from batchscape.report.targets import LOSS, describe_target, first_target

LABEL_GAP = 0.05
"""Distance of a label from the middle of its point, as a share of the range of batch sizes."""
PANELS = {"steps": "Steps to the target", "epochs": "Epochs to the target"}


def draw(
    runs: pd.DataFrame, table: pd.DataFrame, fits: pd.DataFrame, regimes: pd.DataFrame, *, measures: Mapping[str, Any]
) -> p9.ggplot:
    """`runs` gives the points of seeds, `table` means, `fits` the fitted curve, and `regimes` the last line of the
    subtitle; the first target is drawn."""
    words = Measures.from_settings(measures)
    runs, table, fit = first_target(runs), first_target(table), fits.iloc[0]
    best = table[table["is_best"] == 1]
    quantity = LOSS if fit["target"] == LOSS else words.metric(fit["target"]).label
    seeds = runs[runs["setting"].isin(best["setting"]) & runs["status"].ne("diverged")]
    plot = style.empty_plot() if best.empty else _panels(seeds, best, fit, runs["batch_size"])
    return plot + p9.labs(
        title=f"Steps and epochs to the target validation {quantity}",
        subtitle=_subtitle(best, fit, words, len(fits)) + _describe_regimes(regimes, fit),
        x="Batch size",
        y="",
    )


def _panels(runs: pd.DataFrame, best: pd.DataFrame, fit: pd.Series, batch_sizes: pd.Series) -> p9.ggplot:
    sizes = sorted(best["batch_size"])
    seeds = pd.concat([_panel(runs, name, runs[quantity]) for quantity, name in PANELS.items()])
    means = pd.concat([_panel(best, name, best[f"{quantity}_mean"]) for quantity, name in PANELS.items()])
    means["rate"] = means["edge"].eq("none").map({True: "inside the range", False: "on the edge"})
    means["text"] = [format_number(rate) for rate in means["learning_rate"]]
    first = best[best["batch_size"] == sizes[0]].iloc[0]
    x = np.geomspace(sizes[0], sizes[-1], 50)
    gap = LABEL_GAP * max(1, math.log2(sizes[-1] / sizes[0]))
    # The mean sizes of the batches of an epoch, whose last one may be smaller: those that were fitted.
    means_of_sizes = best.sort_values("batch_size").eval("examples_mean / steps_mean")
    mean_x = np.exp(np.interp(np.log(x), np.log(sizes), np.log(means_of_sizes)))
    perfect = {"steps": first["steps_mean"] * mean_x[0] / mean_x, "epochs": np.full_like(x, first["epochs_mean"])}
    curves = [_curve(x, perfect, "perfect scaling")]
    if fit["verdict"] != "not identified":
        steps = fit["min_steps"] * (1 + fit["critical_batch"] / mean_x)
        epochs = fit["min_epochs"] * (1 + mean_x / fit["critical_batch"])
        curves.append(_curve(x, {"steps": steps, "epochs": epochs}, "fit"))
    return (
        p9.ggplot(means, p9.aes("batch_size", "value"))
        + p9.geom_line(p9.aes(linetype="line"), _order_panels(pd.concat(curves)), color="#666666", size=0.6)
        + p9.geom_point(p9.aes(color="size"), _order_panels(seeds).dropna(subset=["value"]), alpha=0.5, size=1.4)
        + p9.geom_label(
            p9.aes(label="text"), _order_panels(means), ha="left", nudge_x=gap, fill="white",
            label_size=0, label_padding=0.1,
        )
        + p9.geom_point(p9.aes(color="size", shape="rate"), _order_panels(means), size=3.5, fill="white", stroke=1)
        + p9.facet_wrap("panel", scales="free_y")
        + p9.scale_x_continuous(
            trans="log2", breaks=sizes, labels=[str(size) for size in sizes], minor_breaks=[], expand=(0.07, 0, 0.2, 0)
        )
        + p9.scale_y_log10(labels=style.tick_labels)
        + p9.scale_linetype_manual(values={"perfect scaling": "dashed", "fit": "solid"}, name="Line")
        + p9.scale_shape_manual(values={"inside the range": "o", "on the edge": "D"}, name="Learning rate")
        + p9.scale_color_manual(values=style.batch_size_colors(batch_sizes), guide=None)
        + style.theme()
    )  # fmt: skip


def _panel(rows: pd.DataFrame, panel: str, values: pd.Series) -> pd.DataFrame:
    return rows.assign(panel=panel, value=values, size=style.as_batch_size_categories(rows["batch_size"]))


def _curve(x: np.ndarray, values: dict[str, np.ndarray], line: str) -> pd.DataFrame:
    return pd.concat(
        [
            pd.DataFrame({"panel": name, "batch_size": x, "value": values[quantity], "line": line})
            for quantity, name in PANELS.items()
        ]
    )


def _order_panels(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(panel=pd.Categorical(rows["panel"], categories=list(PANELS.values()), ordered=True))


def _subtitle(best: pd.DataFrame, fit: pd.Series, measures: Measures, n_targets: int) -> str:
    goal = describe_target(fit["target"], fit["target_value"], measures)
    goal += f" (the first of {n_targets})" if n_targets > 1 else ""
    if best.empty:
        return "No run reached the target" + (f", {goal}" if goal else "")
    n_missed = int(best["n_missed"].sum())
    missed = f"; {n_missed} run{'s' * (n_missed != 1)} never reached it" if n_missed else ""
    seeds = style.describe_seeds(best["n_seeds"], best["n_diverged"])
    target = (
        f"Target {goal}, at the learning rate (labels) with the fewest misses, then the fewest "
        f"steps; small points: seeds; large points: mean over {seeds}{missed}"
    )
    if fit["verdict"] == "not identified":
        critical = f"Critical batch size not identified: {fit['reason']}"
    else:
        interval = format_interval(fit["critical_batch_ci95_low"], fit["critical_batch_ci95_high"])
        interval = "no interval" if pd.isna(fit["critical_batch_ci95_low"]) else f"95 % interval {interval}"
        critical = f"Critical batch size {format_number(fit['critical_batch'])} ({interval})"
        critical += f", {fit['verdict']} the range"
    bound = "" if best["edge"].eq("none").all() else "; diamonds: upper bounds"
    return f"{target}\n{critical + bound}"


def _describe_regimes(regimes: pd.DataFrame, fit: pd.Series) -> str:
    """Return a line with the batch sizes that are in each regime; empty if there is none."""
    rows = regimes[regimes["target"].eq(fit["target"]) & regimes["target_value"].eq(fit["target_value"])]
    pairs = [f"{row['batch_size']} to {row['larger_batch_size']}" for _, row in rows.iterrows()]
    by_regime: dict[str, list[str]] = {}
    for pair, regime in zip(pairs, rows["regime"], strict=True):
        by_regime.setdefault(regime, []).append(pair)
    parts = [f"{regime}: {join_truncated(pairs, 4)}" for regime, pairs in by_regime.items()]
    return f"\n{capitalize('; '.join(parts))}" if parts else ""
