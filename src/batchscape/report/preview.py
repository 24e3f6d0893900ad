"""Preview of a table: its first rows, rounded, with mean and standard deviation in one column."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd

from batchscape.report.headings import heading
from batchscape.report.measures import Measures
from batchscape.report.numbers import MISSING, format_mean_sd, format_number

MAX_ROWS = 200
"""So many rows of a table are in the page, where a script sorts and filters them."""

# Columns of values of which three digits may make 1.
NEAR_ONE = ("target_value", "momentum", "tuned_momentum", "beta2", "tuned_beta2")


@dataclass(frozen=True)
class TablePreview:
    """The formatted cells of the first rows of a table."""

    columns: list[str]
    numeric: list[bool]
    """Whether each column holds numbers."""
    rows: list[list[str]]
    total: int
    """The number of rows of the table."""
    shown: int
    """How many of `rows` are shown before the reader asks for more, which takes a script."""


def preview_table(
    table: pd.DataFrame,
    shown: int,
    measures: Measures,
    columns: Sequence[str] | None = None,
    max_rows: int = MAX_ROWS,
) -> TablePreview:
    """Format the first `max_rows` rows of a table, of which the first `shown` are shown at first.

    The columns `q_mean` and `q_sd` of a quantity are joined to one column `q`; its `q_min` and `q_max` are left out,
    and so is any other column without values. Columns have their `heading`, with the units of `measures`. `columns`
    selects and orders the resulting columns.
    """
    empty = set(table.columns[table.isna().all()])
    names = columns or [name for name in displayed_columns(table) if name not in empty]
    first = table.head(max_rows)
    return TablePreview(
        columns=[heading(name, measures) for name in names],
        numeric=[name not in table or pd.api.types.is_numeric_dtype(table[name]) for name in names],
        rows=[list(cells) for cells in zip(*(_cells(first, name) for name in names), strict=True)],
        total=len(table),
        shown=min(shown, len(first)),
    )


def displayed_columns(table: pd.DataFrame) -> list[str]:
    """Return the names of the columns that show a table: a quantity is one, if it has a mean and an sd."""
    return list(dict.fromkeys(map(_displayed_name(table), table.columns)))


def _displayed_name(table: pd.DataFrame) -> Callable[[str], str]:
    """Return the function that maps a column to the displayed one: the quantity, if it has a mean and an sd."""

    def name(column: str) -> str:
        quantity, _, statistic = column.rpartition("_")
        has_mean_and_sd = {f"{quantity}_mean", f"{quantity}_sd"} <= set(table.columns)
        return quantity if statistic in {"mean", "sd", "min", "max"} and has_mean_and_sd else column

    return name


def _cells(rows: pd.DataFrame, name: str) -> list[str]:
    if name not in rows:
        return [format_mean_sd(*pair) for pair in zip(rows[f"{name}_mean"], rows[f"{name}_sd"], strict=True)]
    format_value = format_number if pd.api.types.is_float_dtype(rows[name]) else str
    if name in NEAR_ONE:
        format_value = "{:.6g}".format
    return [MISSING if pd.isna(value) else format_value(value) for value in rows[name]]
