"""The results of finished studies side by side: those of their tables, with the intervals that these give."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from batchscape.report.comparison.studies import INTERVAL, StudyTables, data_label
from batchscape.report.measures import Measures
from batchscape.report.numbers import format_number
from batchscape.report.optimum import choose_window, fit_vertex, mean_over_seeds
from batchscape.report.ranking import LOSS
from batchscape.report.resampling import Estimate, estimate_over_seeds
from batchscape.report.settings import setting_details
from batchscape.report.summary import find_recommended, find_tuned_hyperparameters
from batchscape.report.tables import scaling
from batchscape.report.tables.recommendation import EXCLUDED
from batchscape.report.targets import TARGET_COLUMNS

NO_ESTIMATE = Estimate(np.nan, np.nan, np.nan)
COLUMNS = [
    *("study", "quantity", "of", "value", "ci95_low", "ci95_high"),
    *("unit", "measure", "n_seeds", "verdict", "note"),
]


class Row(NamedTuple):
    """A row of the comparison, see `docs/outputs.md`."""

    study: str
    quantity: str
    of: str
    estimate: Estimate = NO_ESTIMATE
    unit: str = ""
    measure: str = ""
    n_seeds: float = np.nan
    verdict: str = "none"
    note: str = "none"


def tabulate(studies: Sequence[StudyTables], not_finished: Sequence[str] = ()) -> pd.DataFrame:
    """Return the results of all studies, a row for each study and quantity.

    Args:
        studies: The finished studies.
        not_finished: The names of the others, whose rows are empty.

    Returns:
        The columns `COLUMNS`. Where a study lacks a table, its row has the verdict `missing` and no value.
    """
    rows = [row for study in studies for row in _rows(study)]
    rows += [
        Row(name, quantity, "none", verdict="missing", note="the study is not finished")
        for name in not_finished
        for quantity in QUANTITIES
    ]
    first, *rest = (name for name in QUANTITIES if name != "learning_rate")
    measured = dict.fromkeys(row.quantity for row in rows if row.quantity not in QUANTITIES)
    order = [first, "learning_rate", *measured, *rest]
    rows.sort(key=lambda row: order.index(row.quantity))
    table = pd.DataFrame([(*row[:3], *row.estimate, *row[4:]) for row in rows], columns=COLUMNS)
    return table.replace({"unit": {"": "none"}, "measure": {"": "none"}})


def _rows(study: StudyTables) -> Iterator[Row]:
    for quantity, (source, describe) in QUANTITIES.items():
        if source not in study.tables:
            yield Row(study.name, quantity, "none", verdict="missing", note=f"the table {source} is missing")
        elif describe is not None:
            yield from describe(study)


def _recommended(study: StudyTables) -> Iterator[Row]:
    """Yield the batch size and the rate of the recommended setting, and the losses and metrics that it reaches."""
    table = study.tables["recommendation"]
    table = table.assign(tuned=find_tuned_hyperparameters(table, study.tables.get("tuned_lr")))
    candidates = table[~table["choice"].isin(EXCLUDED)]
    if candidates.empty:
        for quantity in ("batch_size", "learning_rate"):
            yield Row(study.name, quantity, "none", verdict="diverged", note="every setting has a diverged run")
        return
    chosen, confirmed = find_recommended(candidates, study.tables.get("confirmation"))
    row = chosen if confirmed is None else confirmed
    verdict = "chosen by the grid" if confirmed is None else "confirmed"

    def describe(quantity: str, estimate: Estimate, unit: str = "", measure: str = "", note: str = "none") -> Row:
        setting, n_seeds = str(chosen["setting"]), row["n_seeds"]
        return Row(study.name, quantity, setting, estimate, unit, measure, n_seeds, verdict, note)

    details = ", ".join(filter(None, [chosen["tuned"], *setting_details(str(chosen["setting"])).phrases])) or "none"
    is_bound = chosen["edge"] != "none"
    note = f"on the {chosen['edge']} edge of the tried rates, so only a bound" if is_bound else "none"
    yield describe("batch_size", without_interval(chosen["batch_size"]), study.measures.examples, note=details)
    yield describe("learning_rate", without_interval(chosen["learning_rate"]), note=note)
    optimistic = "none" if confirmed is not None else "of the seeds that chose the setting, so optimistic"
    for column in _measured(row):
        yield describe(
            column,
            Estimate(*(float(row.get(f"{column}_{end}", np.nan)) for end in ("mean", *INTERVAL))),
            study.measures.unit_of(column),
            f"{_label(column, study.measures)}, {data_label(study)}",
            "none" if column.startswith("test_") else optimistic,
        )


def without_interval(value: float) -> Estimate:
    return Estimate(float(value), np.nan, np.nan)


def _measured(row: pd.Series) -> list[str]:
    """Return the losses and metrics of a row of `recommendation` or `confirmation`."""
    names = [str(name).removesuffix("_mean") for name in row.index if str(name).endswith("_mean")]
    return [name for name in names if name == LOSS or name.startswith(("validation_", "test_"))]


def _label(column: str, measures: Measures) -> str:
    quantity = column.removesuffix("_at_best").partition("_")[2]
    if quantity in ("validation_loss", "loss"):
        return measures.loss
    return next((metric.label for metric in measures.metrics if metric.name == quantity), quantity)


def _exponents(study: StudyTables) -> Iterator[Row]:
    for _, row in study.tables["scaling"].iterrows():
        left_out = f"batch sizes left out, since their best value is only a bound: {row['n_on_edge']:.0f}"
        yield Row(
            study.name,
            "exponent",
            f"{row['hyperparameter']} of the {row['source']}",
            Estimate(row["exponent"], row["ci95_low"], row["ci95_high"]),
            n_seeds=row["n_seeds"],
            verdict=row["verdict"],
            note=_join_notes(row["reason"], left_out if row["n_on_edge"] else "none"),
        )


def _critical_batches(study: StudyTables) -> Iterator[Row]:
    for _, row in study.tables["critical_batch"].iterrows():
        target = describe_target(study, row)
        for quantity in ("critical_batch", "critical_batch_20pct"):
            ends = (row[f"{quantity}{end}"] for end in ("", "_ci95_low", "_ci95_high"))
            verdict = {"verdict": row["verdict"]} if quantity == "critical_batch" else {}
            reason = row["reason"] if quantity == "critical_batch" else "none"
            note = _join_notes(reason, describe_edges(row["n_on_edge"]))
            yield Row(study.name, quantity, target, Estimate(*ends), study.measures.examples, note=note, **verdict)


def describe_edges(count: float) -> str:
    """Return how many of the best rates are only bounds; `none` if none is."""
    return f"best rates on an edge of the tried ones: {count:.0f}" if count else "none"


def _join_notes(*notes: str) -> str:
    return "; ".join(note for note in notes if note != "none") or "none"


def describe_target(study: StudyTables, row: pd.Series) -> str:
    """Return a target in words, such as `loss 0.05 nats`; with the digits that distinguish it from others."""
    name, value = (row[column] for column in TARGET_COLUMNS)
    if np.isnan(value):
        return "no target"
    unit = study.measures.unit_of(name)
    return f"{name} {value:.10g} {unit}".rstrip()


def _regimes(study: StudyTables) -> Iterator[Row]:
    for _, row in study.tables["regimes"].iterrows():
        yield Row(
            study.name,
            "steps_ratio",
            f"batch size {row['batch_size']} to {row['larger_batch_size']}, {describe_target(study, row)}",
            Estimate(row["steps_ratio"], row["ci95_low"], row["ci95_high"]),
            n_seeds=row["n_seeds"],
            verdict=row["regime"],
            note=row["reason"] if row["reason"] != "none" else describe_edges(row["n_on_edge"]),
        )


class BestRate(NamedTuple):
    """The best learning rate of a batch size; only a bound if it is the lowest or the highest that was tried."""

    estimate: Estimate
    is_bound: bool


def find_best_rates(runs: pd.DataFrame) -> dict[int, BestRate]:
    """Return the best constant learning rate of each batch size, with its interval from leaving out seeds.

    As in the table `scaling`, it is the vertex of a parabola in the mean loss over seeds (`choose_window`,
    `fit_vertex`); the rates that it is fitted to are those of all seeds.

    Args:
        runs: The table `runs`.

    Returns:
        By batch size. A bound is the best tried rate, without an interval; nan if every rate diverged.
    """
    losses = scaling.losses_of_grid(runs)
    return {int(size): _find_best_rate(losses, size) for size in np.unique(losses.batch_sizes)}


def _find_best_rate(losses: scaling.Losses, batch_size: int) -> BestRate:
    columns = np.flatnonzero(losses.batch_sizes == batch_size)
    positions, values = losses.positions[columns], losses.values[:, columns]
    means = mean_over_seeds(values)
    window = choose_window(positions, means)
    if len(window):

        def vertex(values: np.ndarray) -> np.ndarray:
            return np.array([fit_vertex(positions[window], mean_over_seeds(values[:, window]))])

        return BestRate(estimate_over_seeds(vertex, values)[0].without_ties().exp(), is_bound=False)
    best = np.exp(positions[np.nanargmin(means)]) if np.isfinite(means).any() else np.nan
    return BestRate(without_interval(best), is_bound=True)


def _best_rates(study: StudyTables) -> Iterator[Row]:
    runs = study.tables["runs"]
    for size, rate in find_best_rates(runs).items():
        note = "the best tried rate is on an edge of the tried ones, or too many runs around it diverged"
        verdict, note = ("bound", note) if rate.is_bound else ("inside", "none")
        yield Row(
            study.name,
            "best_learning_rate",
            f"batch size {size}",
            rate.estimate,
            n_seeds=runs["seed"].nunique(),
            verdict=verdict,
            note=note,
        )


def _tuned_rates(study: StudyTables) -> Iterator[Row]:
    for _, row in study.tables["tuned_lr"].iterrows():
        diverged = not np.isfinite(row["validation_loss"])
        value = np.nan if diverged else row["tuned_learning_rate"]
        verdict = "diverged" if diverged else "inside" if row["edge"] == "none" else "bound"
        note = "none" if verdict == "inside" else row["advice"]
        of = f"batch size {row['batch_size']}"
        yield Row(study.name, "tuned_learning_rate", of, without_interval(value), verdict=verdict, note=note)


# The table that has it, and what yields its rows; the recommended setting has all of its rows under its first quantity.
QUANTITIES: Mapping[str, tuple[str, Any]] = {
    "batch_size": ("recommendation", _recommended),
    "learning_rate": ("recommendation", None),
    "exponent": ("scaling", _exponents),
    "best_learning_rate": ("runs", _best_rates),
    "tuned_learning_rate": ("tuned_lr", _tuned_rates),
    "critical_batch": ("critical_batch", _critical_batches),
    "critical_batch_20pct": ("critical_batch", None),
    "steps_ratio": ("regimes", _regimes),
}


def describe_value(row: pd.Series) -> str:
    """Return a value of the comparison with its interval, such as `120 (95 to 160)`."""
    value = format_number(row["value"])
    if np.isnan(row["ci95_low"]):
        return value
    return f"{value} ({format_number(row['ci95_low'])} to {format_number(row['ci95_high'])})"
