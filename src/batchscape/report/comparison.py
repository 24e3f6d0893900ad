"""What is the same and what differs between finished studies: settings, results side by side, power laws, and a claim.

Results are those of the tables of the studies, with the intervals that these give.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from statsmodels.regression.linear_model import OLS
from statsmodels.tools import add_constant

from batchscape.config.scaling import known_hyperparameters
from batchscape.report.measures import Measures, capitalize
from batchscape.report.numbers import format_number
from batchscape.report.optimum import choose_window, fit_vertex, mean_over_seeds
from batchscape.report.ranking import LOSS
from batchscape.report.resampling import Estimate, estimate_over_seeds
from batchscape.report.settings import setting_details
from batchscape.report.summary import find_recommended, find_tuned_hyperparameters
from batchscape.report.tables import critical_batch, scaling
from batchscape.report.targets import TARGET_COLUMNS, runs_at_best_settings, split_by_target

INTERVAL = ("ci95_low", "ci95_high")
TABLES: Mapping[str, Sequence[str]] = {
    "recommendation": (
        *("setting", "batch_size", "learning_rate", f"{LOSS}_mean", "best_epoch_mean", "choice", "edge", "n_seeds"),
    ),
    "confirmation": ("setting", f"{LOSS}_mean", *(f"{LOSS}_{end}" for end in INTERVAL), "choice", "n_seeds"),
    "scaling": ("source", "hyperparameter", "exponent", *INTERVAL, "verdict", "reason", "n_on_edge", "n_seeds"),
    "runs": ("setting", "batch_size", "learning_rate", "seed", "status", LOSS),
    "tuned_lr": ("batch_size", "tuned_learning_rate", "validation_loss", "edge", "advice"),
    "critical_batch": (
        *TARGET_COLUMNS,
        *(f"critical_batch{name}" for name in ("", "_20pct")),
        *(f"critical_batch{name}_{end}" for name in ("", "_20pct") for end in INTERVAL),
        *("verdict", "reason", "n_on_edge"),
    ),
    "regimes": (
        *TARGET_COLUMNS,
        *("batch_size", "larger_batch_size", "steps_ratio", *INTERVAL, "regime", "reason", "n_on_edge", "n_seeds"),
    ),
    "runs_to_target": (*TARGET_COLUMNS, "setting", "batch_size", "seed", "status", "steps", "examples"),
    "steps_to_target": (*TARGET_COLUMNS, "setting", "is_best"),
}
"""The tables that a comparison reads, with the columns that it needs."""

TRAINED = ("data", "task", "model", "training", "optimizer", "schedule", "averaging")
"""The sections that decide how a run trains; all others say which runs there are, and what is measured."""
NOT_TRAINED = ("training.checkpoints", "training.accelerator")
DATA_SIZE = ("data.images", "data.max_examples", "data.validation_fraction", "data.test_fraction")
"""Keys that change how many examples there are to train on, and nothing else about them."""
NOT_MODEL_SIZE = ("model.name", "model.dropout", "model.normalization", "model.context")
MIN_RUNGS = 3
ADAM = ("Adam", "AdamW", "NAdam", "RAdam", "Adamax")

NO_ESTIMATE = Estimate(np.nan, np.nan, np.nan)
COLUMNS = [
    *("study", "quantity", "of", "value", "ci95_low", "ci95_high"),
    *("unit", "measure", "n_seeds", "verdict", "note"),
]
LAW_COLUMNS = [
    *("ladder", "studies", "quantity", "of", "exponent", "ci95_low", "ci95_high"),
    *("n_studies", "smallest", "largest", "note"),
]
CLAIM_COLUMNS = [
    *("claim", "source", "baseline", "other", "differs_in", "target", "ratio", "ci95_low", "ci95_high"),
    *("n_seeds", "verdict", "note"),
]
CLAIMS = ("Momentum raises the critical batch size", "Adam raises the critical batch size")
SOURCE = "Zhang et al. 2019, Which Algorithmic Choices Matter at Which Batch Sizes?"


@dataclass(frozen=True)
class StudyTables:
    """A finished study.

    Attributes:
        name: Its name in the comparison.
        settings: Its settings with all defaults, by their dotted keys.
        measures: What its loss and its metrics are called, and their units.
        data_sha256: Hash of its prepared data: the losses of two studies are of the same data if it is the same.
        training_examples: Number of examples that it trains on.
        parameters: Number of parameters of its network.
        tables: Those of `TABLES` that it has, by name.
    """

    name: str
    settings: Mapping[str, Any]
    measures: Measures
    data_sha256: str
    training_examples: int
    parameters: int
    tables: Mapping[str, pd.DataFrame]

    @property
    def trained(self) -> dict[str, Any]:
        """The settings that decide how its runs train."""
        return {
            key: value
            for key, value in self.settings.items()
            if key.partition(".")[0] in TRAINED and key not in NOT_TRAINED
        }


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


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of nested settings by their dotted keys, such as `optimizer.arguments.momentum`."""
    values: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            values |= flatten(value, f"{prefix}{key}.")
        else:
            values[f"{prefix}{key}"] = value
    return values


def find_differences(studies: Sequence[StudyTables]) -> pd.DataFrame:
    """Return the settings that are not the same in all studies, those that decide how runs train first.

    Args:
        studies: The studies.

    Returns:
        One row for each key: `key`, `decides` (`training`, or `runs and analyses`), and a column for each study with
        its value as text; `not set` if it does not have the key.
    """
    keys = sorted({key for study in studies for key in study.settings} - {"name"})
    rows = []
    for key in keys:
        values = [study.settings.get(key, "not set") for study in studies]
        if any(value != values[0] for value in values):
            decides = "training" if any(key in study.trained for study in studies) else "runs and analyses"
            texts = {study.name: _as_text(value) for study, value in zip(studies, values, strict=True)}
            rows.append({"key": key, "decides": decides} | texts)
    table = pd.DataFrame(rows, columns=["key", "decides", *(study.name for study in studies)])
    return table.sort_values("decides", key=lambda column: column != "training", kind="stable", ignore_index=True)


def _as_text(value: Any) -> str:
    """Return a value as in a study file."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, list):
        return f"[{', '.join(map(_as_text, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_as_text(part)}' for key, part in value.items())}}}"
    return str(value)


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
    candidates = table[table["choice"] != "diverged"]
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
    yield describe("batch_size", _exactly(chosen["batch_size"]), study.measures.examples, note=details)
    yield describe("learning_rate", _exactly(chosen["learning_rate"]), note=note)
    optimistic = "none" if confirmed is not None else "of the seeds that chose the setting, so optimistic"
    for column in _measured(row):
        yield describe(
            column,
            Estimate(*(float(row.get(f"{column}_{end}", np.nan)) for end in ("mean", *INTERVAL))),
            study.measures.unit_of(column),
            f"{_label(column, study.measures)}, {_data(study)}",
            "none" if column.startswith("test_") else optimistic,
        )


def _exactly(value: float) -> Estimate:
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


def _data(study: StudyTables) -> str:
    return f"data {study.data_sha256[:12]}"


def _exponents(study: StudyTables) -> Iterator[Row]:
    for _, row in study.tables["scaling"].iterrows():
        notes = [] if row["reason"] == "none" else [row["reason"]]
        if row["n_on_edge"]:
            notes.append(f"batch sizes left out, since their best value is only a bound: {row['n_on_edge']:.0f}")
        yield Row(
            study.name,
            "exponent",
            f"{row['hyperparameter']} of the {row['source']}",
            Estimate(row["exponent"], row["ci95_low"], row["ci95_high"]),
            n_seeds=row["n_seeds"],
            verdict=row["verdict"],
            note="; ".join(notes) or "none",
        )


def _critical_batches(study: StudyTables) -> Iterator[Row]:
    for _, row in study.tables["critical_batch"].iterrows():
        target = _target(study, row)
        for quantity in ("critical_batch", "critical_batch_20pct"):
            ends = (row[f"{quantity}{end}"] for end in ("", "_ci95_low", "_ci95_high"))
            verdict = {"verdict": row["verdict"]} if quantity == "critical_batch" else {}
            notes = [row["reason"]] if quantity == "critical_batch" and row["reason"] != "none" else []
            notes += [_on_edges(row["n_on_edge"])] if row["n_on_edge"] else []
            note = "; ".join(notes) or "none"
            yield Row(study.name, quantity, target, Estimate(*ends), study.measures.examples, note=note, **verdict)


def _on_edges(count: float) -> str:
    return f"best rates on an edge of the tried ones: {count:.0f}"


def _target(study: StudyTables, row: pd.Series) -> str:
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
            f"batch size {row['batch_size']} to {row['larger_batch_size']}, {_target(study, row)}",
            Estimate(row["steps_ratio"], row["ci95_low"], row["ci95_high"]),
            n_seeds=row["n_seeds"],
            verdict=row["regime"],
            note=row["reason"]
            if row["reason"] != "none"
            else _on_edges(row["n_on_edge"]) * bool(row["n_on_edge"]) or "none",
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

        return BestRate(estimate_over_seeds(vertex, values)[0].exp(), is_bound=False)
    best = np.exp(positions[np.nanargmin(means)]) if np.isfinite(means).any() else np.nan
    return BestRate(_exactly(best), is_bound=True)


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
        yield Row(study.name, "tuned_learning_rate", of, _exactly(value), verdict=verdict, note=note)


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


class Ladder(NamedTuple):
    """Studies that differ only in the size of their training set or of their network.

    Attributes:
        quantity: `training examples` or `parameters`.
        keys: The keys in which they differ.
        studies: The studies, smallest first.
        sizes: The size of each.
    """

    quantity: str
    keys: tuple[str, ...]
    studies: tuple[StudyTables, ...]
    sizes: tuple[int, ...]


def find_ladders(studies: Sequence[StudyTables]) -> list[Ladder]:
    """Return the groups of at least three studies whose runs train alike but for the size of the data or the network.

    Args:
        studies: The studies.

    Returns:
        The ladders. Studies of the same size as another one of the group are not part of it, as they are repeats.
    """
    ladders = []
    for quantity, split in (("training examples", _split_data_size), ("parameters", _split_model_size)):
        groups: dict[str, list[StudyTables]] = {}
        for study in studies:
            groups.setdefault(split(study), []).append(study)
        for group in groups.values():
            by_size = {study_size(study, quantity): study for study in reversed(group)}
            rungs = dict(sorted(by_size.items()))
            if len(rungs) >= MIN_RUNGS:
                keys = tuple(
                    key
                    for key in dict.fromkeys(key for study in group for key in study.trained)
                    if any(study.trained.get(key) != group[0].trained.get(key) for study in group)
                )
                ladders.append(Ladder(quantity, keys, tuple(rungs.values()), tuple(rungs)))
    return ladders


def study_size(study: StudyTables, quantity: str) -> int:
    """Return the number of training examples or of parameters of a study."""
    return study.training_examples if quantity == "training examples" else study.parameters


def _split_data_size(study: StudyTables) -> str:
    """Return all that decides how a study trains but the size of its data, as text."""
    return repr(sorted((key, value) for key, value in study.trained.items() if key not in DATA_SIZE))


def _split_model_size(study: StudyTables) -> str:
    """Return all that decides how a study trains but the size of its network, as text."""
    others = sorted((key, value) for key, value in study.trained.items() if not _is_model_size(key, value))
    return repr([study.data_sha256, *others])


def _is_model_size(key: str, value: Any) -> bool:
    is_number = isinstance(value, int) and not isinstance(value, bool)
    is_size = is_number or (isinstance(value, list) and all(isinstance(part, int) for part in value))
    return key.startswith("model.") and key not in NOT_MODEL_SIZE and is_size


def fit_power_law(sizes: Sequence[float], values: Sequence[float]) -> Estimate:
    """Return the exponent of a power law, fitted by least squares to logarithms, with its 95 % t interval.

    The interval comes from the deviations from the line, which include the errors of the values.

    Args:
        sizes: Positive and distinct, shape (n,).
        values: Positive, shape (n,).

    Returns:
        The exponent; nan if there are fewer than three values.
    """
    if len(sizes) < MIN_RUNGS:
        return NO_ESTIMATE
    fit = OLS(np.log(values), add_constant(np.log(np.asarray(sizes, dtype=float)))).fit()
    return Estimate(float(fit.params[1]), *map(float, fit.conf_int(0.05)[1]))


def tabulate_power_laws(ladders: Sequence[Ladder], comparison: pd.DataFrame) -> pd.DataFrame:
    """Return by which power the critical batch size and the best learning rate follow the size of each ladder.

    Args:
        ladders: The ladders.
        comparison: The result of `tabulate`.

    Returns:
        The columns `LAW_COLUMNS`: critical batch sizes for the first target of each study, and the best learning rate
        at each batch size that all studies of the ladder have. Bounds and values that are not identified are left out.
    """
    rows = []
    for ladder in ladders:
        names = [study.name for study in ladder.studies]
        values = comparison[comparison["study"].isin(names)]
        for quantity in ("critical_batch", "critical_batch_20pct", "best_learning_rate"):
            of_quantity = values[values["quantity"] == quantity]
            if quantity == "best_learning_rate":
                counts = of_quantity.groupby("of", sort=False)["study"].nunique()
                groups = [(of, of_quantity[of_quantity["of"] == of]) for of in counts.index[counts == len(names)]]
            else:
                first = of_quantity.drop_duplicates("study")
                targets = list(dict.fromkeys(first["of"]))
                groups = [(targets[0] if len(targets) == 1 else "the first target of each study", first)] * bool(
                    targets
                )
            rows += [_fit_ladder(ladder, quantity, of, group) for of, group in groups]
    return pd.DataFrame(rows, columns=LAW_COLUMNS)


def _fit_ladder(ladder: Ladder, quantity: str, of: str, rows: pd.DataFrame) -> dict[str, object]:
    by_study = rows.set_index("study")
    usable = np.isfinite(by_study["value"]) & ~by_study["verdict"].isin(["bound", "not identified", "missing"])
    pairs = [
        (size, float(by_study.at[study.name, "value"]))
        for size, study in zip(ladder.sizes, ladder.studies, strict=True)
        if study.name in by_study.index and usable[study.name]
    ]
    exponent = fit_power_law(*zip(*pairs, strict=True)) if len(pairs) >= MIN_RUNGS else NO_ESTIMATE
    named: dict[str, list[str]] = {}
    for name, row in by_study.iterrows():
        if row["verdict"] == "outside":
            named.setdefault("outside of the tried batch sizes, so extrapolated", []).append(str(name))
        if row["note"] != "none":
            named.setdefault(row["note"], []).append(str(name))
    notes = [f"{note} ({', '.join(names)})" for note, names in named.items()]
    if len(pairs) < MIN_RUNGS:
        notes.append(f"{len(pairs)} of {len(ladder.studies)} studies have a value that is no bound; three are needed")
    elif left_out := len(ladder.studies) - len(pairs):
        notes.append(
            f"{left_out} of {len(ladder.studies)} studies are left out, whose value is missing or only a bound"
        )
    if of.startswith("the first target"):
        notes.append(f"the targets differ: {', '.join(dict.fromkeys(rows['of']))}")
    sizes = [size for size, _ in pairs]
    return {
        "ladder": f"{ladder.quantity} ({', '.join(ladder.keys)})",
        "studies": "; ".join(study.name for study in ladder.studies),
        "quantity": quantity,
        "of": of,
        "exponent": exponent.value,
        "ci95_low": exponent.ci95_low,
        "ci95_high": exponent.ci95_high,
        "n_studies": len(pairs),
        "smallest": min(sizes, default=np.nan),
        "largest": max(sizes, default=np.nan),
        "note": "; ".join(notes) or "none",
    }


def tabulate_claims(studies: Sequence[StudyTables]) -> pd.DataFrame:
    """Return what pairs of studies that differ in the optimizer only say about their critical batch sizes.

    Zhang et al. 2019 claim that momentum raises the critical batch size of SGD, and that Adam raises it beyond that of
    SGD with momentum. A claim is `supported` if the 95 % interval of the ratio lies above 1, `refuted` if it lies below
    it, else `undecided`.

    Args:
        studies: The studies.

    Returns:
        The columns `CLAIM_COLUMNS`, one row for each pair and target that both studies have.
    """
    rows = [
        row
        for pair in combinations(studies, 2)
        for row in _claims_of(*sorted(pair, key=lambda study: _optimizer_rank(study) or 0))
    ]
    return pd.DataFrame(rows, columns=CLAIM_COLUMNS)


def _optimizer_rank(study: StudyTables) -> int | None:
    """Return 0 for plain SGD, 1 for SGD with momentum, 2 for Adam and its like, and None for any other optimizer."""
    name = study.settings["optimizer.name"]
    if name == "SGD":
        arguments = {"momentum": study.settings.get("optimizer.arguments.momentum")}
        return int(known_hyperparameters(name, arguments)["momentum"] > 0)
    return 2 if name in ADAM else None


def _claims_of(baseline: StudyTables, other: StudyTables) -> Iterator[dict[str, object]]:
    ranks = _optimizer_rank(baseline), _optimizer_rank(other)
    settings = [
        {key: value for key, value in study.trained.items() if key.partition(".")[0] not in ("data", "optimizer")}
        for study in (baseline, other)
    ]
    if None in ranks or ranks[0] == ranks[1] or settings[0] != settings[1]:
        return
    keys = sorted(key for key in {*baseline.trained, *other.trained} if key.startswith("optimizer."))
    row: dict[str, object] = {
        "claim": CLAIMS[ranks[1] == 2],
        "source": SOURCE,
        "baseline": baseline.name,
        "other": other.name,
        "differs_in": ", ".join(key for key in keys if baseline.trained.get(key) != other.trained.get(key)),
    }
    undecided = {"target": "none", "ratio": np.nan, "ci95_low": np.nan, "ci95_high": np.nan, "n_seeds": 0}
    undecided["verdict"] = "undecided"
    if baseline.data_sha256 != other.data_sha256:
        if not _differ_in_data(baseline, other):
            yield row | undecided | {"note": "the data of the two studies differ although their settings do not"}
        return
    needed = ("runs_to_target", "steps_to_target", "critical_batch")
    missing = [f"{study.name}: {name}" for study in (baseline, other) for name in needed if name not in study.tables]
    if missing:
        yield row | undecided | {"note": f"tables are missing ({', '.join(missing)})"}
        return
    targets = [_by_target(study) for study in (baseline, other)]
    shared = [target for target in targets[0] if target in targets[1]]
    for target in shared:
        yield row | _compare_at_target(targets[0][target], targets[1][target])
    if not shared:
        names = (
            f"{study.name}: {', '.join(part.target for part in found.values())}"
            for study, found in zip((baseline, other), targets, strict=True)
        )
        note = f"the studies have no target in common ({'; '.join(names)}); give both the same comparison.targets"
        yield row | undecided | {"note": note}


def _differ_in_data(first: StudyTables, second: StudyTables) -> bool:
    return any(
        first.trained.get(key) != second.trained.get(key)
        for key in {*first.trained, *second.trained}
        if key.startswith("data.")
    )


class StepsOfStudy(NamedTuple):
    """Steps to a target at the best settings: those of each seed, with a column for each batch size."""

    target: str
    steps: pd.DataFrame
    batch_sizes: np.ndarray
    n_on_edge: int
    verdict: str
    reason: str


def _by_target(study: StudyTables) -> dict[tuple[str, float], StepsOfStudy]:
    """Return the steps of a study by the name and the value of its targets."""
    tables = (study.tables[name] for name in ("runs_to_target", "steps_to_target", "critical_batch"))
    found = {}
    for runs, settings, fitted in zip(*map(split_by_target, tables), strict=True):
        best = runs_at_best_settings(runs, settings)
        steps = best.pivot(index="seed", columns="batch_size", values="steps").astype(float)
        sizes = (best["examples"] / best["steps"]).groupby(best["batch_size"]).mean().to_numpy()
        row = fitted.iloc[0]
        key = (str(row["target"]), float(row["target_value"]))
        found[key] = StepsOfStudy(
            _target(study, row), steps, sizes, int(row["n_on_edge"]), row["verdict"], row["reason"]
        )
    return found


def _compare_at_target(baseline: StepsOfStudy, other: StepsOfStudy) -> dict[str, object]:
    """Return the ratio of two critical batch sizes, with its interval over the seeds that both studies have."""
    seeds = baseline.steps.index.intersection(other.steps.index)
    ratio = compare_critical_batches(
        baseline.batch_sizes,
        baseline.steps.loc[seeds].to_numpy(),
        other.batch_sizes,
        other.steps.loc[seeds].to_numpy(),
    )
    above, below = ratio.ci95_low > 1, ratio.ci95_high < 1
    notes = [f"not identified: {part.reason}" for part in (baseline, other) if part.reason != "none"]
    if "outside" in (baseline.verdict, other.verdict):
        notes.append("a critical batch size is outside of the tried batch sizes, so extrapolated")
    if len(seeds) < 2:
        notes.append("fewer than two seeds in common give no interval")
    if edges := baseline.n_on_edge + other.n_on_edge:
        notes.append(f"{_on_edges(edges)}, so it is valid for these rates only")
    return {
        "target": baseline.target,
        "ratio": ratio.value,
        "ci95_low": ratio.ci95_low,
        "ci95_high": ratio.ci95_high,
        "n_seeds": len(seeds),
        "verdict": "supported" if above else "refuted" if below else "undecided",
        "note": "; ".join(notes) or "none",
    }


def compare_critical_batches(
    batch_sizes: np.ndarray, steps: np.ndarray, other_batch_sizes: np.ndarray, other_steps: np.ndarray
) -> Estimate:
    """Return the ratio of the critical batch size of another study to that of one, with its interval.

    Both are fitted to the same seeds (`critical_batch.fit`), and the interval comes from leaving out one seed of both
    at a time (`estimate_over_seeds`): what the runs of a seed share does not widen it.

    Args:
        batch_sizes: Mean batch sizes of the one study, shape (n,).
        steps: Its steps to the target, shape (seeds, n); nan where a run did not reach it.
        other_batch_sizes: Those of the other study, shape (m,).
        other_steps: Its steps of the same seeds, shape (seeds, m).
    """

    def fit(sizes: np.ndarray, values: np.ndarray) -> float:
        reached = ~np.isnan(values)
        return float(critical_batch.fit(np.broadcast_to(sizes, values.shape)[reached], values[reached])[0][0])

    def log_ratio(values: np.ndarray) -> np.ndarray:
        one, other = values[:, : len(batch_sizes)], values[:, len(batch_sizes) :]
        return np.array([fit(other_batch_sizes, other) - fit(batch_sizes, one)])

    return estimate_over_seeds(log_ratio, np.concatenate([steps, other_steps], axis=1))[0].exp()


def describe_comparability(studies: Sequence[StudyTables]) -> list[str]:
    """Return sentences on losses that cannot be compared: they are of other kinds, units or data."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for study in studies:
        key = (study.measures.loss, study.measures.loss_unit, _data(study))
        groups.setdefault(key, []).append(study.name)
    if len(groups) < 2:
        return []
    parts = (
        f"{', '.join(names)}: {measure}{f' ({unit})' if unit else ''} of {data}"
        for (measure, unit, data), names in groups.items()
    )
    same = len({key[:2] for key in groups}) == 1
    why = "they are measured on different data" if same else "they are different quantities or have different units"
    return [f"Losses can be compared only within a group, since {why}: {'; '.join(parts)}."]


def describe_value(row: pd.Series) -> str:
    """Return a value of the comparison with its interval, such as `120 (95 to 160)`."""
    value = format_number(row["value"])
    if np.isnan(row["ci95_low"]):
        return value
    return f"{value} ({format_number(row['ci95_low'])} to {format_number(row['ci95_high'])})"


def describe_law(row: pd.Series) -> str:
    """Return a power law in a sentence."""
    quantity = {
        "critical_batch": f"critical batch size for {row['of']}",
        "critical_batch_20pct": f"20 % critical batch size for {row['of']}",
        "best_learning_rate": f"best learning rate at {row['of']}",
    }[row["quantity"]]
    if np.isnan(row["exponent"]):
        return f"How the {quantity} follows the {row['ladder']} is not determined: {row['note']}."
    note = "" if row["note"] == "none" else f" {capitalize(row['note'])}."
    return (
        f"The {quantity} is proportional to the {row['ladder']} to the power of {format_number(row['exponent'])} "
        f"(95 % interval {format_number(row['ci95_low'])} to {format_number(row['ci95_high'])}, "
        f"{row['n_studies']} studies).{note}"
    )
