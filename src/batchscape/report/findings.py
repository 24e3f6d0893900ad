"""What a figure shows in this study, in a sentence with its numbers: whether the surprise of its caption happened."""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from batchscape.analysis.distance import ALL_LAYERS
from batchscape.report.chapters import CAPTIONS
from batchscape.report.numbers import format_number
from batchscape.report.settings import at_learning_rate

Tables = Mapping[str, pd.DataFrame]


def describe_findings(figure: str, tables: Tables, fixed_learning_rate: float) -> list[str]:
    """Return sentences about a figure: what the claims of its caption found, and what is measured in the tables.

    Empty if nothing was measured, or if a table is missing.
    """
    found = []
    if "claims" in tables:
        claims = tables["claims"]
        tested = claims[claims["claim"].isin(CAPTIONS[figure].claims) & claims["n_seeds"].gt(0)]
        for comparison, rows in tested.groupby("comparison", sort=False):
            found += [f"{comparison}: {' '.join(rows['reading'])}"]
    if figure in MEASURED:
        names, measure = MEASURED[figure]
        if all(name in tables for name in names):
            found += measure(*(tables[name] for name in names), fixed_learning_rate)
    return found


def _verdicts(claims: pd.DataFrame, _: float) -> list[str]:
    counts = claims["verdict"].value_counts()
    tested = int(claims["n_seeds"].gt(0).sum())
    return [
        f"Of {len(claims)} claims {tested} could be tested: {counts.get('supported', 0)} are supported, "
        f"{counts.get('refuted', 0)} refuted."
    ]


def _speed_ups(devices: pd.DataFrame, _: float) -> list[str]:
    timed = devices.dropna(subset=["speedup"])
    rows = timed[(timed["devices"] == timed["devices"].max()) & (timed["devices"] > 1)].sort_values("batch_size")
    if rows.empty:
        return []
    of_sizes = _by_size(rows["batch_size"], rows["speedup"])
    return [f"On {rows['devices'].iloc[0]} devices the speed-up is {of_sizes}."]


def _layers(distance: pd.DataFrame, fixed_learning_rate: float) -> list[str]:
    rows = at_learning_rate(distance, fixed_learning_rate)
    means = rows.pivot(index="layer", columns="batch_size", values="distance_mean").dropna(axis="columns", how="all")
    if means.shape[1] < 2 or ALL_LAYERS not in means.index:
        return []
    small, large = means.columns.min(), means.columns.max()
    ratios = (means[large] / means[small]).dropna()
    layers = ratios.drop(ALL_LAYERS, errors="ignore")
    if layers.empty or ALL_LAYERS not in ratios:
        return []
    return [
        f"The distance of batch size {large} is {format_number(ratios[ALL_LAYERS])} times that of {small} over all layers, "
        f"by layer {format_number(layers.min())} ({layers.idxmin()}) to {format_number(layers.max())} ({layers.idxmax()}) times."
    ]


def _growth(fits: pd.DataFrame, fixed_learning_rate: float) -> list[str]:
    rows = at_learning_rate(fits, fixed_learning_rate).dropna(subset=["r2_difference_mean"])
    if rows.empty:
        return []
    better = int(rows["r2_difference_mean"].lt(0).sum())
    log, power = (
        " to ".join(dict.fromkeys(f"{end:.3f}" for end in (rows[column].min(), rows[column].max())))
        for column in ("log_r2_mean", "power_r2_mean")
    )
    return [
        f"The power law fits better than the logarithm in {better} of {len(rows)} batch sizes: R² {power}, of the "
        f"logarithm {log}."
    ]


def _alignment(table: pd.DataFrame, _: float) -> list[str]:
    rows = table[table["gradient_norm_mean"].gt(0)]
    most = rows["gradient_batch"].max()
    one, many = (rows[rows["gradient_batch"] == size].set_index(["setting", "checkpoint"]) for size in (1, most))
    ratios = (many["gradient_norm_mean"] / one["gradient_norm_mean"]).dropna()
    if ratios.empty:
        return []
    parts = [
        f"{_range(values.min(), values.max())} at {checkpoint}"
        for checkpoint, values in ratios.groupby(level="checkpoint")
    ]
    return [
        f"The norm of the mean gradient of {most} examples over that of one example: {', '.join(parts)}. Without any "
        f"agreement it would be {format_number(most**-0.5)}."
    ]


def _noise(table: pd.DataFrame, fixed_learning_rate: float) -> list[str]:
    rows = at_learning_rate(table, fixed_learning_rate).dropna(subset=["noise_scale_mean"]).sort_values("epoch")
    ends = rows.groupby("batch_size")["noise_scale_mean"].agg(["first", "last", "size"])
    ends = ends[(ends["size"] > 1) & ends["first"].gt(0) & np.isfinite(ends["last"])]
    if ends.empty:
        return []
    of_sizes = _by_size(ends.index, ends["last"] / ends["first"])
    return [f"The noise scale at its last measurement over that after the first epoch is {of_sizes}."]


def _steps(table: pd.DataFrame, _: float) -> list[str]:
    best = table[table["is_best"] == 1].dropna(subset=["steps_mean"]).sort_values("batch_size")
    if len(best) < 2:
        return []
    first, last = best.iloc[0], best.iloc[-1]
    perfect = first["batch_size"] / last["batch_size"]
    return [
        f"Batch size {last['batch_size']} takes {format_number(last['steps_mean'] / first['steps_mean'])} times the steps of "
        f"batch size {first['batch_size']}; perfect scaling would take {format_number(perfect)} times as many."
    ]


def _hills(table: pd.DataFrame, _: float) -> list[str]:
    found = []
    for (first, second), line in table.groupby(["first", "second"], sort=False):
        losses = line.set_index("alpha")["train_loss_mean"]
        between = losses[(losses.index > 0) & (losses.index < 1)]
        if not {0.0, 1.0} <= set(losses.index) or not np.isfinite(losses).all() or not losses[[0.0, 1.0]].max() > 0:
            continue
        ratio = format_number(between.max() / losses[[0.0, 1.0]].max())
        found.append(
            f"Between {first} and {second} the training loss rises to {ratio} times that of the end with the greater "
            "loss; without a hill this is at most 1."
        )
    return found


def _lowest(cells: pd.DataFrame, _: float) -> list[str]:
    planes = [rows.dropna(subset=["loss"]) for _, rows in cells.groupby(["run", "direction_seed"])]
    planes = [rows for rows in planes if len(rows)]
    if not planes:
        return []
    beside = sum(bool((rows.loc[rows["loss"].idxmin(), ["x", "y"]] != 0).any()) for rows in planes)
    return [f"In {beside} of {len(planes)} planes the lowest point is not the middle."]


def _variance(trajectory: pd.DataFrame, _: float) -> list[str]:
    columns = ["explained_variance_x", "explained_variance_y"]
    shares = trajectory.dropna(subset=columns).groupby("run")[columns].first().sum(axis=1)
    if shares.empty:
        return []
    return [f"The planes hold {_range(shares.min() * 100, shares.max() * 100)} % of the variance."]


def _diverged(scaled_lr: pd.DataFrame, _: float) -> list[str]:
    rows = scaled_lr[(scaled_lr["quantity"] == "best_validation_loss") & (scaled_lr["arm"] != "high")]
    counts = rows.groupby("arm", sort=False)["n_diverged"].sum()
    return [f"Diverged runs: {', '.join(f'{count} in the arm {arm}' for arm, count in counts.items())}."]


def _tuned(tuned_lr: pd.DataFrame, _: float) -> list[str]:
    rows = tuned_lr[np.isfinite(tuned_lr["validation_loss"])].sort_values("batch_size")
    if len(rows) < 2:
        return []
    first, last = rows.iloc[0], rows.iloc[-1]
    times = last["batch_size"] / first["batch_size"]
    return [
        f"The rate found for batch size {last['batch_size']} is "
        f"{format_number(last['tuned_learning_rate'] / first['tuned_learning_rate'])} times that for {first['batch_size']}; "
        f"linear scaling would be {format_number(times)}, square-root scaling {format_number(times**0.5)} times."
    ]


MEASURED: dict[str, tuple[tuple[str, ...], Callable[..., list[str]]]] = {
    "claims": (("claims",), _verdicts),
    "devices": (("devices",), _speed_ups),
    "distance_by_layer": (("distance",), _layers),
    "distance_over_time": (("distance_log_fit",), _growth),
    "gradient_alignment": (("gradient_alignment",), _alignment),
    "noise_scale": (("noise_scale",), _noise),
    "steps_to_target": (("steps_to_target",), _steps),
    "interpolation": (("interpolation",), _hills),
    "landscape": (("landscape",), _lowest),
    "trajectory": (("trajectory",), _variance),
    "curves_scaled_lr": (("scaled_lr",), _diverged),
    "lr_search": (("tuned_lr",), _tuned),
}


def _by_size(sizes: pd.Series | pd.Index, values: pd.Series) -> str:
    return ", ".join(f"{format_number(value)} for batch size {size}" for size, value in zip(sizes, values, strict=True))


def _range(low: float, high: float) -> str:
    ends = list(dict.fromkeys([format_number(low), format_number(high)]))
    return " to ".join(ends)
