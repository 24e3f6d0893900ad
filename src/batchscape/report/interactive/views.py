"""Which figures have an interactive counterpart, and which columns each shows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import pandas as pd

from batchscape.analysis.distance import ALL_LAYERS
from batchscape.report.figures.by_epoch import epochs_with_all_seeds
from batchscape.report.figures.convergence import COSTS
from batchscape.report.figures.sharpness import NAMES
from batchscape.report.measures import Measures, add_unit
from batchscape.report.settings import constant_lr_settings, shared_learning_rates

FIRST_METRIC = "{metric}"
"""In the name of a column, a placeholder for the metric that figures show first."""
FIRST_LABEL = ""
"""The first value of a dimension in the rows of its file, whatever it is."""
ENDS = ("min_train_loss", "best_validation_loss", f"validation_{FIRST_METRIC}_at_best", *COSTS)

Prepare = Callable[[pd.DataFrame, Measures], pd.DataFrame]


@dataclass(frozen=True)
class View:
    """An interactive figure.

    Attributes:
        x: The column of the horizontal axis.
        panels: The columns that are drawn, a panel for each. With `panel_by` it is one column.
        runs: The file with the rows of runs, below the folder of the study; empty if only means are drawn.
        means: The file with their means and standard deviations over seeds; empty if there is none.
        mark: Whether the rows of a run are a line, or each is a point. The grid of a surface is not thinned by rows.
        color: The dimension that colors tell apart at first.
        panel_by: The column whose values are the panels.
        by: Columns, besides batch size, learning rate, seed and arm, whose values can be switched on and off.
        start: The value of a dimension that alone is switched on at first; `FIRST_LABEL` for its first one.
        without: Of batch size, learning rate, seed and arm, those whose values cannot be switched.
        log: The axes that are logarithmic at first; not that of a loss that is negative.
        quantities: The values of the column `quantity` whose rows are drawn, in this order; empty if there is none.
        prepare: Selects rows of a file or adds columns to it.
    """

    x: str
    panels: tuple[str, ...]
    runs: str = ""
    means: str = ""
    mark: Literal["line", "point", "surface"] = "point"
    color: str = "batch_size"
    panel_by: str = ""
    by: tuple[str, ...] = ()
    start: Mapping[str, str] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    log: str = ""
    quantities: tuple[str, ...] = ()
    prepare: Prepare | None = None

    @property
    def sources(self) -> tuple[str, ...]:
        """The files that are drawn."""
        return tuple(filter(None, (self.runs, self.means)))

    def key(self, file: str) -> str:
        """Return by what figures share the series of a file: they read it in the same way."""
        how = self.prepare.__name__ if self.prepare else ""
        return " ".join([file, self.x, *self.panels, self.panel_by, *self.by, *self.without, *self.quantities, how])

    def select(self, frame: pd.DataFrame, measures: Measures) -> pd.DataFrame:
        """Return the rows of a file that are drawn."""
        if self.quantities:
            names = [name for quantity in self.quantities if (name := name_column(quantity, measures))]
            frame = frame[frame["quantity"].isin(names)]
            frame = frame.sort_values("quantity", key=lambda column: column.map(names.index), kind="stable")
        return self.prepare(frame, measures) if self.prepare else frame


def _at_shared_rates(frame: pd.DataFrame, _: Measures) -> pd.DataFrame:
    rows = constant_lr_settings(frame[frame["layer"] == ALL_LAYERS])
    return rows[rows["learning_rate"].isin(shared_learning_rates(rows))].sort_values("learning_rate", kind="stable")


def _constant_rates(frame: pd.DataFrame, _: Measures) -> pd.DataFrame:
    return constant_lr_settings(frame)


def _single_layers(frame: pd.DataFrame, _: Measures) -> pd.DataFrame:
    return frame[frame["layer"] != ALL_LAYERS]


def _while_all_train(frame: pd.DataFrame, _: Measures) -> pd.DataFrame:
    return epochs_with_all_seeds(frame) if "n_seeds" in frame else frame


def _while_all_pairs_train(frame: pd.DataFrame, measures: Measures) -> pd.DataFrame:
    """Drop the means of fewer seeds than train at first, and those of ratios after the first run of a pair ended."""
    if "n_ratios" not in frame:
        return frame
    has_all = frame["n_ratios"] == frame.groupby("setting")["n_ratios"].transform("max")
    of_ratios = ["ratio_to_large_mean", "ratio_to_large_sd"]
    return _while_all_train(frame.assign(**frame[of_ratios].where(has_all)), measures)


def _name_measures(frame: pd.DataFrame, measures: Measures) -> pd.DataFrame:
    """Replace the name of a measure of sharpness by that of the static figure, with its radius."""
    units = {"loss_unit": add_unit("", measures.loss_unit), "curvature_unit": measures.per_weight("²")}
    titles = [
        NAMES[measure].format(radius=radius, **units).replace("\n(", " (").replace("\n", ", ")
        for measure, radius in zip(frame["measure"], frame["radius"], strict=True)
    ]
    order = frame["measure"].map(list(NAMES).index)
    named = frame.assign(order=order).sort_values(["order", "radius"], kind="stable")
    return named.assign(measure=pd.Series(titles, frame.index, dtype=object)).drop(columns="order")


def _name_pairs(frame: pd.DataFrame, _: Measures) -> pd.DataFrame:
    pairs = [f"{first} to {second}" for first, second in zip(frame["first"], frame["second"], strict=True)]
    return frame.assign(pair=pairs, setting=pairs)


def _name_targets(frame: pd.DataFrame, measures: Measures) -> pd.DataFrame:
    named = [
        f"{measures.loss if name == 'loss' else measures.metric(name).label} {value:g}"
        for name, value in zip(frame["target"], frame["target_value"], strict=True)
    ]
    return constant_lr_settings(frame.assign(target=named))


def _name_trials(frame: pd.DataFrame, _: Measures) -> pd.DataFrame:
    frame = frame[frame["stage"] != "finalist"]  # which train longer, so that their losses are lower
    names = [
        f"batch size {size}, trial {trial}" for size, trial in zip(frame["batch_size"], frame["trial"], strict=True)
    ]
    return frame.assign(run=names)


def _name_batch_sizes(frame: pd.DataFrame, _: Measures) -> pd.DataFrame:
    return frame.assign(run="batch size " + frame["batch_size"].astype(str))


def _name_planes(frame: pd.DataFrame, _: Measures) -> pd.DataFrame:
    return frame.assign(direction_seed=[f"directions {seed}" for seed in frame["direction_seed"]])


def _loss_curves(arm: str) -> View:
    return View(
        "epoch", ("train_loss", "validation_loss"), "analysis/history", "tables/curves",
        mark="line", start={"arm": arm} if arm else {}, log="xy", prepare=_while_all_train,
    )  # fmt: skip


def _by_arm(*quantities: str) -> View:
    return View(
        "batch_size", ("value",), "tables/arm_runs", "tables/scaled_lr",
        color="arm", panel_by="quantity", log="x", quantities=quantities,
    )  # fmt: skip


AT_FIXED_RATE = {"arm": "fixed"}
FIRST_TARGET = {"target": FIRST_LABEL}
VIEWS: dict[str, View] = {
    "curves_fixed_lr": _loss_curves("fixed"),
    "curves_high_lr": _loss_curves("high"),
    "curves_scaled_lr": _loss_curves(""),
    "convergence": View("batch_size", ENDS, "tables/runs", "tables/lr_grid", start=AT_FIXED_RATE, log="x"),
    "convergence_before_after": _by_arm(*ENDS),
    "distance_before_after": _by_arm("distance", "update_norm"),
    "sharpness_before_after": _by_arm("sharpness"),
    "distance": View(
        "batch_size", ("distance",), "analysis/distance", "tables/distance",
        panel_by="learning_rate", log="x", prepare=_at_shared_rates,
    ),
    "distance_by_layer": View(
        "batch_size", ("distance",), "analysis/distance", "tables/distance",
        panel_by="layer", start=AT_FIXED_RATE, log="x", prepare=_single_layers,
    ),
    "distance_over_time": View(
        "step", ("distance",), "analysis/history", "tables/distance_over_time",
        mark="line", start=AT_FIXED_RATE, log="x", prepare=_while_all_train,
    ),
    "epoch_distance": View(
        "epoch", ("epoch_distance", "ratio_to_large"), "analysis/epoch_distance", "tables/epoch_distance",
        mark="line", start=AT_FIXED_RATE, log="xy", prepare=_while_all_pairs_train,
    ),
    "update_norms": View(
        "percentile", ("update_norm",), "analysis/update_norms", mark="line", start=AT_FIXED_RATE, log="y"
    ),
    "noise_scale": View(
        "epoch", ("noise_scale", "gradient_norm"), "analysis/history", "tables/noise_scale",
        mark="line", start=AT_FIXED_RATE, log="xy", prepare=_while_all_train,
    ),
    "lr_effect": View(
        "learning_rate", ("best_validation_loss",), "tables/runs", "tables/lr_grid",
        log="xy", prepare=_constant_rates,
    ),
    "lr_search": View(
        "learning_rate", ("validation_loss",), "tables/trials", by=("stage",), without=("learning_rate",), log="xy",
        prepare=_name_trials,
    ),
    "steps_to_target": View(
        "batch_size", ("steps", "epochs"), "tables/runs_to_target", "tables/steps_to_target",
        color="learning_rate", by=("target",), start=FIRST_TARGET, log="xy", prepare=_name_targets,
    ),
    "frontier": View(
        "examples", ("seconds", "cpu_seconds", "steps"), "tables/runs_to_target", "tables/steps_to_target",
        by=("target",), start=FIRST_TARGET, log="xy", prepare=_name_targets,
    ),
    "sharpness": View(
        "batch_size", ("value",), "analysis/sharpness", "tables/sharpness",
        panel_by="measure", by=("checkpoint",), start={**AT_FIXED_RATE, "checkpoint": "best"}, log="x",
        prepare=_name_measures,
    ),
    "interpolation": View(
        "alpha", ("train_loss", "validation_loss", f"validation_{FIRST_METRIC}"),
        "analysis/interpolation", "tables/interpolation", mark="line", color="pair", by=("pair",), prepare=_name_pairs,
    ),
    "landscape": View(
        "x", ("loss",), "tables/landscape", mark="surface", by=("direction_seed",), log="z", prepare=_name_planes
    ),
    "trajectory": View("x", ("loss",), "tables/trajectory", mark="surface", log="z"),
    "gradient_alignment": View(
        "gradient_batch", ("gradient_norm", "alignment"), "analysis/gradient_alignment", "tables/gradient_alignment",
        mark="line", by=("checkpoint",), start={"checkpoint": "best"}, log="xy",
    ),
    "curvature": View(
        "epoch", ("eigenvalue_times_rate", "batch_sharpness_times_rate", "preconditioned_times_rate"),
        "analysis/curvature", mark="line", log="xy",
    ),
    "branching": View(
        "branch_batch_size", ("excess", "train_loss", "validation_loss"), "analysis/branching", "tables/branches",
        mark="line", by=("point",), log="x",
    ),
    "devices": View(
        "devices", ("epoch_seconds", "speedup", "efficiency"), "tables/devices",
        mark="line", log="x", prepare=_name_batch_sizes,
    ),
}  # fmt: skip
"""The interactive figures by the name of the static one."""


def name_column(column: str, measures: Measures) -> str:
    """Return the name of a column in this study; empty if it is that of a metric and there is none."""
    if FIRST_METRIC not in column:
        return column
    return column.replace(FIRST_METRIC, measures.first.name) if measures.first else ""
