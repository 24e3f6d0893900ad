"""A table as a page shows it: its first rows, rounded, mean and standard deviation in one column."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd

from batchscape.report.numbers import MISSING, format_mean_sd, format_number


@dataclass(frozen=True)
class TablePreview:
    """What stands in the cells; `numeric` says of each column whether it is one of numbers, `total` counts all rows."""

    columns: list[str]
    numeric: list[bool]
    rows: list[list[str]]
    total: int


def preview_table(table: pd.DataFrame, most: int, columns: Sequence[str] | None = None) -> TablePreview:
    """Return the first `most` rows of a table.

    A quantity that is there as `q_mean` and `q_sd` becomes one column, and its `q_min` and `q_max` are left out, and so
    is another column without any value. `columns` chooses among the columns that there are then, and orders them.
    """
    empty = set(table.columns[table.isna().all()])
    names = columns or [name for name in dict.fromkeys(map(_quantity(table), table.columns)) if name not in empty]
    shown = table.head(most)
    return TablePreview(
        columns=list(map(_heading, names)),
        numeric=[name not in table or pd.api.types.is_numeric_dtype(table[name]) for name in names],
        rows=[list(cells) for cells in zip(*(_cells(shown, name) for name in names), strict=True)],
        total=len(table),
    )


def _quantity(table: pd.DataFrame) -> Callable[[str], str]:
    """Return the function that gives the shown name of a column: that of its quantity."""

    def name(column: str) -> str:
        stem, _, statistic = column.rpartition("_")
        summarised = {f"{stem}_mean", f"{stem}_sd"} <= set(table.columns)
        return stem if statistic in {"mean", "sd", "min", "max"} and summarised else column

    return name


def _cells(rows: pd.DataFrame, name: str) -> list[str]:
    if name not in rows:
        return [format_mean_sd(*pair) for pair in zip(rows[f"{name}_mean"], rows[f"{name}_sd"], strict=True)]
    show = format_number if pd.api.types.is_float_dtype(rows[name]) else str
    return [MISSING if pd.isna(value) else show(value) for value in rows[name]]


def _heading(name: str) -> str:
    unit = " (nats)" if name == "loss" or name.endswith("_loss") else ""
    return name.replace("_", " ") + unit
