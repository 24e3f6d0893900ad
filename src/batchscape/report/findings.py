"""The results of this study that the report prints below a figure, as sentences with numbers."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pandas as pd

from batchscape.analysis.distance import ALL_LAYERS
from batchscape.report.chapters import CAPTIONS
from batchscape.report.claims.verdict import DECIDED
from batchscape.report.measures import Measures
from batchscape.report.numbers import format_interval, format_number, format_range
from batchscape.report.settings import at_learning_rate
from batchscape.report.targets import describe_target, first_target, split_by_target


def describe_findings(
    figure: str, tables: Mapping[str, pd.DataFrame], fixed_learning_rate: float, measures: Measures
) -> list[str]:
    """Return sentences about a figure: the results of the claims that its caption names, and measured values.

    The list is empty if nothing was measured or a table is missing.
    """
    sentences = []
    if "claims" in tables:
        claims = tables["claims"]
        tested = claims[claims["claim"].isin(CAPTIONS[figure].claims) & claims["verdict"].ne("not tested")]
        for comparison, rows in tested.groupby("comparison", sort=False):
            sentences.append(f"{comparison}: {' '.join(rows['reading'])}")
    # Of an analysis of the loss surface; for a branch they are those before it.
    if figure != "branching" and "examples" in tables.get(figure, {}):
        sentences += _describe_examples(tables[figure], measures)
    for table, describe in MEASURED.get(figure, []):
        if table in tables:
            sentences += describe(tables[table], fixed_learning_rate, measures)
    return sentences


def _describe_examples(table: pd.DataFrame, measures: Measures) -> Iterator[str]:
    counts = table["examples"].dropna()
    if len(counts):
        yield f"Computed over {format_range(counts, '{:,.0f}'.format)} training {measures.examples}."


def _count_verdicts(claims: pd.DataFrame, _: float, __: Measures) -> Iterator[str]:
    tested = len(claims) - claims["verdict"].eq("not tested").sum()

    def count(verdict: str) -> str:
        rows = claims[claims["verdict"] == verdict]
        holds = int(rows["holds_after_holm"].sum())
        return f"{len(rows)} {verdict}" + (f" ({holds} after Holm's adjustment)" if len(rows) else "")

    yield (
        f"{tested} of {len(claims)} claims could be tested: {', '.join(map(count, DECIDED))}, "
        f"{claims['verdict'].eq('undecided').sum()} undecided."
    )
    more = pd.to_numeric(claims["seeds_needed"], errors="coerce") - claims["n_seeds"]
    more = more[more > 0]
    if len(more):
        statement = claims.loc[more.idxmin(), "statement"].removesuffix(".")
        yield (
            f"Of the undecided ones, “{statement}” needs the fewest seeds: {more.min():.0f} more, which "
            f"batchscape extend FILE --seeds {more.min():.0f} adds."
        )


def _describe_speedup(devices: pd.DataFrame, _: float, __: Measures) -> Iterator[str]:
    timed = devices.dropna(subset=["speedup"])
    rows = timed[(timed["devices"] == timed["devices"].max()) & (timed["devices"] > 1)].sort_values("batch_size")
    if len(rows):
        speedups = _join_by_batch_size(rows["batch_size"], rows["speedup"])
        yield f"On {rows['devices'].iloc[0]} devices the speedup is {speedups}."


def _compare_layers(distance: pd.DataFrame, fixed_learning_rate: float, _: Measures) -> Iterator[str]:
    rows = at_learning_rate(distance, fixed_learning_rate)
    means = rows.pivot(index="layer", columns="batch_size", values="distance_mean").dropna(axis="columns", how="all")
    if means.shape[1] < 2 or ALL_LAYERS not in means.index:
        return
    small, large = means.columns.min(), means.columns.max()
    ratios = (means[large] / means[small]).dropna()
    layers = ratios.drop(ALL_LAYERS, errors="ignore")
    if len(layers) and ALL_LAYERS in ratios:
        yield (
            f"The distance of batch size {large} is {format_number(ratios[ALL_LAYERS])} times that of {small} over all "
            f"layers; for single layers, between {format_number(layers.min())} ({layers.idxmin()}) and "
            f"{format_number(layers.max())} ({layers.idxmax()}) times."
        )


def _compare_fits(fits: pd.DataFrame, fixed_learning_rate: float, _: Measures) -> Iterator[str]:
    rows = at_learning_rate(fits, fixed_learning_rate).dropna(subset=["r2_difference_mean"])
    if len(rows):
        better = int(rows["r2_difference_mean"].lt(0).sum())
        log, power = (format_range(rows[column], "{:.3f}".format) for column in ("log_r2_mean", "power_r2_mean"))
        yield (
            f"The power law fits better than the logarithm for {better} of {len(rows)} batch sizes: R² {power}, "
            f"against {log} for the logarithm."
        )


def _describe_alignment(table: pd.DataFrame, _: float, __: Measures) -> Iterator[str]:
    rows = table[table["gradient_norm_mean"].gt(0)]
    largest = rows["gradient_batch"].max()
    one, many = (rows[rows["gradient_batch"] == size].set_index(["setting", "checkpoint"]) for size in (1, largest))
    ratios = (many["gradient_norm_mean"] / one["gradient_norm_mean"]).dropna()
    if len(ratios):
        by_checkpoint = ratios.groupby(level="checkpoint")
        parts = [f"{format_range(values)} at {checkpoint}" for checkpoint, values in by_checkpoint]
        yield (
            f"Ratio of the norm of the mean gradient of {largest} examples to that of one example: {', '.join(parts)}. "
            f"Without any alignment it would be {format_number(largest**-0.5)}."
        )


def _describe_noise_scale(table: pd.DataFrame, fixed_learning_rate: float, _: Measures) -> Iterator[str]:
    rows = at_learning_rate(table, fixed_learning_rate).dropna(subset=["noise_scale_mean"]).sort_values("epoch")
    # Runs end at different epochs: means over fewer seeds are those of other runs.
    rows = rows[rows["n_seeds"] == rows.groupby("batch_size")["n_seeds"].transform("max")]
    ends = rows.groupby("batch_size")["noise_scale_mean"].agg(["first", "last", "size"])
    ends = ends[(ends["size"] > 1) & ends["first"].gt(0) & np.isfinite(ends["last"])]
    if len(ends):
        ratios = _join_by_batch_size(ends.index, ends["last"] / ends["first"])
        yield f"Ratio of the noise scale at the last evaluation that all seeds have to that at the first one: {ratios}."


def _compare_steps(table: pd.DataFrame, _: float, measures: Measures) -> Iterator[str]:
    rows = first_target(table)
    rows = rows[rows["is_best"] == 1].dropna(subset=["steps_mean"]).sort_values("batch_size")
    if len(rows) > 1:
        first, last = rows.iloc[0], rows.iloc[-1]
        perfect = first["batch_size"] / last["batch_size"]
        ratio = last["steps_mean"] / first["steps_mean"]
        n_targets = len(split_by_target(table))
        goal = describe_target(first["target"], first["target_value"], measures)
        start = f"To the first of {n_targets} targets, {goal}, batch" if n_targets > 1 else "Batch"
        yield (
            f"{start} size {last['batch_size']} takes {format_number(ratio)} times the steps of batch size "
            f"{first['batch_size']}; perfect scaling would take {format_number(perfect)} times as many."
        )


def _compare_tolerance(tolerance: pd.DataFrame, _: float, __: Measures) -> Iterator[str]:
    rows = tolerance.dropna(subset=["width"]).sort_values("batch_size")
    if len(rows):
        is_cut = rows[["low_end", "high_end"]].ne("inside").any(axis=1)
        words = [f"{'at least ' * cut}{format_number(width)}" for width, cut in zip(rows["width"], is_cut, strict=True)]
        ends = [f"{word} for batch size {size}" for size, word in zip(rows["batch_size"], words, strict=True)]
        yield f"Ratio of the highest to the lowest good learning rate: {', '.join(ends)}."


def _describe_frontier(frontier: pd.DataFrame, _: float, __: Measures) -> Iterator[str]:
    if frontier.empty:
        return
    rows = first_target(frontier)
    on_front = rows.loc[rows["is_pareto"] == 1, "batch_size"].astype(str)
    yield f"On the Pareto front of time and examples: batch size {', '.join(on_front)}."
    last = rows.iloc[-1]
    if np.isfinite(last["time_ratio"]):
        yield (
            f"From batch size {rows['batch_size'].iloc[-2]} to {last['batch_size']}, a doubling multiplies the steps "
            f"by {format_number(last['steps_ratio'])}, the examples by {format_number(last['examples_ratio'])} and the "
            f"time by {format_number(last['time_ratio'])}."
        )


def _describe_critical_batch(table: pd.DataFrame, _: float, __: Measures) -> Iterator[str]:
    bounds = {"high": "at least ", "low": "at most "}
    for setting, rows in table.dropna(subset=["critical_batch"]).groupby("setting", sort=False):
        points = [
            f"{bounds.get(row.edge, '')}{row.critical_batch:.0f} after epoch {format_number(row.epoch)}"
            f"{_interval(row.critical_batch_ci95_low, row.critical_batch_ci95_high)}"
            for row in rows.itertuples()
        ]
        yield f"The critical batch size of {setting} is {', '.join(points)}."


def _describe_batch_schedule(table: pd.DataFrame, _: float, __: Measures) -> Iterator[str]:
    for _, row in table.iterrows():
        if row["stages"] == "none":
            yield f"No critical batch size of {row['base_setting']} is above its own, so the batch size does not grow."
        elif row["n_seeds"]:
            steps, steps_to_loss = (_describe_share(row, name) for name in ("steps_saved", "steps_saved_to_loss"))
            # A loss that can be negative has no ratio.
            best = "" if np.isnan(row["loss_ratio"]) else _describe_loss_ratio(row)
            yield (
                f"A batch size that grows to the critical one saves {steps} of the steps of {row['base_setting']}, and "
                f"{steps_to_loss} of those to the same validation loss.{best}"
            )


def _describe_loss_ratio(row: pd.Series) -> str:
    interval = _interval(row["loss_ratio_ci95_low"], row["loss_ratio_ci95_high"])
    ratio = format_number(row["loss_ratio"])
    return f" The best validation loss is {ratio} times that at the constant batch size{interval}."


def _describe_share(row: pd.Series, name: str) -> str:
    value, low, high = (100 * row[column] for column in (name, f"{name}_ci95_low", f"{name}_ci95_high"))
    return f"{format_number(value)} %{_interval(low, high)}"


def _interval(low: float, high: float) -> str:
    return "" if np.isnan(low) else f" (95 % interval {format_interval(low, high)})"


def _describe_curvature(table: pd.DataFrame, _: float, __: Measures) -> Iterator[str]:
    last = table[table["checkpoint"] == "last"]
    for name, column, edge in (
        ("top eigenvalue", "eigenvalue_times_rate", "edge"),
        ("batch sharpness", "batch_sharpness_times_rate", "edge"),
        ("preconditioned eigenvalue", "preconditioned_times_rate", "preconditioned_edge"),
    ):
        rows = last[np.isfinite(last[f"{column}_mean"]) & np.isfinite(last[f"{edge}_mean"])]
        values = [
            f"{format_number(value)} for {setting}"
            for value, setting in zip(rows[f"{column}_mean"], rows["setting"], strict=True)
        ]
        if values:
            yield (
                f"At the last weights the {name} times the learning rate is {', '.join(values)}; the edge is "
                f"{format_range(rows[f'{edge}_mean'])}."
            )


def _describe_barriers(table: pd.DataFrame, _: float, measures: Measures) -> Iterator[str]:
    is_signed = (table["train_loss_mean"] < 0).any()
    for (first, second), line in table.groupby(["first", "second"], sort=False):
        losses = line.set_index("alpha")["train_loss_mean"]
        between = losses[(losses.index > 0) & (losses.index < 1)]
        if not {0.0, 1.0} <= set(losses.index) or not np.isfinite(losses).all():
            continue
        end = losses[[0.0, 1.0]].max()
        if is_signed:
            height = measures.loss_phrase(format_number(between.max() - end))
            yield (
                f"Between {first} and {second} the highest training loss minus that of the end with the higher loss is "
                f"{height}; without a barrier this difference is at most 0."
            )
        elif end > 0:
            yield (
                f"Between {first} and {second} the highest training loss is {format_number(between.max() / end)} times "
                "that of the end with the higher loss; without a barrier this ratio is at most 1."
            )


def _count_lower_points(cells: pd.DataFrame, _: float, __: Measures) -> Iterator[str]:
    planes = [rows.dropna(subset=["loss"]) for _, rows in cells.groupby(["run", "direction_seed"])]
    planes = [rows for rows in planes if len(rows)]
    if planes:
        off_center = sum(bool((rows.loc[rows["loss"].idxmin(), ["x", "y"]] != 0).any()) for rows in planes)
        yield f"In {off_center} of {len(planes)} planes the lowest point is not at the center."


def _describe_variance(trajectory: pd.DataFrame, _: float, __: Measures) -> Iterator[str]:
    columns = ["explained_variance_x", "explained_variance_y"]
    shares = trajectory.dropna(subset=columns).groupby("run")[columns].first().sum(axis=1)
    if len(shares):
        yield f"The planes explain {format_range(shares * 100)} % of the variance."


def _count_diverged(scaled_lr: pd.DataFrame, _: float, __: Measures) -> Iterator[str]:
    rows = scaled_lr[(scaled_lr["quantity"] == "best_validation_loss") & (scaled_lr["arm"] != "high")]
    counts = rows.groupby("arm", sort=False)["n_diverged"].sum()
    yield f"Diverged runs: {', '.join(f'{count} in the arm {arm}' for arm, count in counts.items())}."


def _compare_tuned_rates(tuned_lr: pd.DataFrame, _: float, __: Measures) -> Iterator[str]:
    rows = tuned_lr[np.isfinite(tuned_lr["validation_loss"])].sort_values("batch_size")
    if len(rows) > 1:
        first, last = rows.iloc[0], rows.iloc[-1]
        ratio = last["tuned_learning_rate"] / first["tuned_learning_rate"]
        linear = last["batch_size"] / first["batch_size"]
        yield (
            f"The tuned rate of batch size {last['batch_size']} is {format_number(ratio)} times that of batch size "
            f"{first['batch_size']}; linear scaling would be {format_number(linear)} times, square-root scaling "
            f"{format_number(linear**0.5)} times."
        )


MEASURED: dict[str, list[tuple[str, Callable[[pd.DataFrame, float, Measures], Iterator[str]]]]] = {
    "claims": [("claims", _count_verdicts)],
    "devices": [("devices", _describe_speedup)],
    "distance_by_layer": [("distance", _compare_layers)],
    "distance_over_time": [("distance_log_fit", _compare_fits)],
    "gradient_alignment": [("gradient_alignment", _describe_alignment)],
    "noise_scale": [("noise_scale", _describe_noise_scale)],
    "branching": [("branching", _describe_critical_batch), ("batch_schedule", _describe_batch_schedule)],
    "curvature": [("curvature", _describe_curvature)],
    "steps_to_target": [("steps_to_target", _compare_steps)],
    "tolerance": [("tolerance", _compare_tolerance)],
    "frontier": [("frontier", _describe_frontier)],
    "interpolation": [("interpolation", _describe_barriers)],
    "landscape": [("landscape", _count_lower_points)],
    "trajectory": [("trajectory", _describe_variance)],
    "curves_scaled_lr": [("scaled_lr", _count_diverged)],
    "lr_search": [("tuned_lr", _compare_tuned_rates)],
}
"""The tables that a figure's sentences are computed from, and the functions that write them."""


def _join_by_batch_size(sizes: pd.Series | pd.Index, values: pd.Series) -> str:
    return ", ".join(f"{format_number(value)} for batch size {size}" for size, value in zip(sizes, values, strict=True))
