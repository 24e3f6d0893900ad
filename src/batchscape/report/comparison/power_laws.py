"""Power laws over ladders: studies that differ only in the size of their training set or of their network."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from statsmodels.regression.linear_model import OLS
from statsmodels.tools import add_constant

from batchscape.report.comparison.results import NO_ESTIMATE
from batchscape.report.comparison.studies import StudyTables
from batchscape.report.measures import capitalize
from batchscape.report.numbers import format_number
from batchscape.report.resampling import Estimate

DATA_SIZE = ("data.images", "data.max_examples", "data.validation_fraction", "data.test_fraction")
"""Keys that change how many examples there are to train on, and nothing else about them."""
NOT_MODEL_SIZE = ("model.name", "model.dropout", "model.normalization", "model.context")
MIN_RUNGS = 3
COLUMNS = [
    *("ladder", "studies", "quantity", "of", "exponent", "ci95_low", "ci95_high"),
    *("n_studies", "smallest", "largest", "note"),
]


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


def tabulate(ladders: Sequence[Ladder], comparison: pd.DataFrame) -> pd.DataFrame:
    """Return by which power the critical batch size and the best learning rate follow the size of each ladder.

    Args:
        ladders: The ladders.
        comparison: The result of `batchscape.report.comparison.results.tabulate`.

    Returns:
        The columns `COLUMNS`: critical batch sizes for the first target of each study, and the best learning rate
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
    return pd.DataFrame(rows, columns=COLUMNS)


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
