"""Finished studies as a comparison reads them, and in which settings they differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from batchscape.report.measures import Measures
from batchscape.report.ranking import LOSS
from batchscape.report.targets import TARGET_COLUMNS

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


def data_label(study: StudyTables) -> str:
    return f"data {study.data_sha256[:12]}"


def describe_comparability(studies: Sequence[StudyTables]) -> list[str]:
    """Return sentences on losses that cannot be compared: they are of other kinds, units or data."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for study in studies:
        key = (study.measures.loss, study.measures.loss_unit, data_label(study))
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
