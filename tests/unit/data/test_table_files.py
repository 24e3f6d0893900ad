"""Rows of CSV and Parquet files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from batchscape.data.table_files import classify, open_table, to_numbers, to_texts

MISSING = frozenset(["", "NA"])


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("1", "number"),
        ("-1.5e-3", "number"),
        ("nan", "text"),
        ("1_000", "text"),
        ("1,5", "text"),
        ("0x10", "text"),
        ("TRUE", "boolean"),
        ("yes", "text"),
        ("2024-02-29", "date"),
        ("2023-02-29", "text"),
        ("2024-02-29T12:30:00Z", "date"),
        ("2024-02-29 12:30:00.25+01:00", "date"),
        ("29.02.2024", "text"),
        ("2024-02", "text"),
    ],
)
def test_kinds_of_values(value: str, kind: str):
    assert classify(value) == kind


def test_numbers_are_those_of_python_to_the_last_bit():
    numbers = np.random.default_rng(0).normal(size=600) * 10.0 ** np.arange(-300, 300)
    values = [repr(number) for number in numbers.tolist()]
    assert to_numbers(values, "number", MISSING).tolist() == [float(value) for value in values]


def test_missing_values_are_nan_or_none():
    assert np.isnan(to_numbers(["1", "NA", "", "2"], "number", MISSING)).tolist() == [False, True, True, False]
    assert to_texts(["a", "NA", ""], "text", MISSING) == ["a", None, None]


def test_dates_are_days_since_1970():
    values = ["1970-01-02", "1970-01-01T06:00:00", "1970-01-01T06:00:00+06:00", "1969-12-31"]
    assert to_numbers(values, "date", MISSING).tolist() == [1, 0.25, 0, -1]


def test_lines_are_counted_in_chunks_and_quotes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("batchscape.data.table_files.CSV_CHUNK_ROWS", 2)
    path = tmp_path / "t.csv"
    path.write_bytes(b'x,y\n1,"a\nb"\n\n2,c\n3, d \n4,"e, f"\n')
    chunks = list(open_table(str(path), "data.path", None, MISSING).chunks(["y", "x"]))
    assert [chunk.places.tolist() for chunk in chunks] == [[2, 5], [6, 7]]
    assert [list(chunk.columns["y"]) for chunk in chunks] == [["a\nb", "c"], ["d", "e, f"]]


@pytest.mark.parametrize(
    ("header", "separator"), [("a,b;c,d", ","), ('a;"b,c,d,e";f', ";"), ("a\tb c", "\t"), ("a|b", "|")]
)
def test_the_separator_is_the_one_that_the_header_has_most_of(tmp_path: Path, header: str, separator: str):
    path = tmp_path / "t.csv"
    path.write_text(f"{header}\n")
    assert open_table(str(path), "data.path", None, MISSING).separator == separator


def test_parquet_has_types_and_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("batchscape.data.table_files.CHUNK_ROWS", 2)
    frame = pd.DataFrame(
        {
            "number": pd.array([1, None, 3], "Int64"),
            "text": ["a", None, "NA"],
            "category": pd.Categorical(["x", "y", "x"]),
            "flag": [True, False, True],
            "day": pd.to_datetime(["1970-01-02", "1970-01-03 12:00", None], format="ISO8601"),
        }
    )
    path = tmp_path / "t.parquet"
    frame.to_parquet(path)
    file = open_table(str(path), "data.path", None, MISSING)
    assert file.kinds == {"number": "number", "text": "text", "category": "text", "flag": "boolean", "day": "date"}
    first, second = file.chunks(file.columns)
    assert (first.places.tolist(), second.places.tolist()) == ([1, 2], [3])
    np.testing.assert_array_equal(first.columns["number"], [1, np.nan])
    assert first.columns["text"] == ["a", ""]
    assert to_texts(second.columns["text"], "text", file.missing_values) == ["NA"]
    assert first.columns["category"] == ["x", "y"]
    assert first.columns["flag"].tolist() == [1, 0]
    assert first.columns["day"].tolist() == [1, 2.5]
    assert np.isnan(second.columns["day"]).all()


@pytest.mark.parametrize("count", [131_073, 1_000_000])
def test_fields_may_be_long(tmp_path: Path, count: int):
    path = tmp_path / "t.csv"
    path.write_text(f'text,y\n"{"a" * count}",1\n')
    (rows,) = open_table(str(path), "data.path", None, MISSING).chunks(["text", "y"])
    assert (len(rows.columns["text"][0]), rows.columns["y"]) == (count, ["1"])


def test_too_long_a_field_is_reported_with_its_line(tmp_path: Path, refusal: Callable, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("batchscape.data.table_files.MAX_FIELD_LENGTH", 1000)
    path = tmp_path / "t.csv"
    path.write_text(f'text,y\na,1\n"{"a" * 1001}",1\n')
    file = open_table(str(path), "data.path", None, MISSING)
    assert refusal(lambda names: list(file.chunks(names)), ["text"]) == (
        f"data.path: {path}, line 3: a field has more than 1,000 characters, perhaps because a quote is never closed; "
        "close it, or double it if it is part of the text, or leave the column out of the file"
    )
