"""Rows of CSV and Parquet files, a chunk at a time, with the place of each row in its file."""

import bz2
import codecs
import csv
import gzip
import io
import lzma
import math
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np

from batchscape.data.source import join_names
from batchscape.errors import UserError

# Rows in memory at once, and for tables of many columns a bound on their fields. Fields of CSV are objects: as many as
# fit into the cache are read twice as fast as ten times as many.
CHUNK_ROWS = 20_000
CSV_CHUNK_ROWS = 1_000
CHUNK_FIELDS = 2_000_000

# Characters of a field of CSV. A longer one is more likely the rest of the file behind a quote that is never closed.
MAX_FIELD_LENGTH = 2**24

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}

OPENERS: dict[bytes, Callable[[str, str], Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
DECOMPRESSION_ERRORS = (gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError)

DATE = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:?\d\d)?)?")
DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
SECONDS_PER_DAY = 86_400

# The name of a column that a data frame's index was written to; R and pandas leave it empty.
INDEX_NAME = re.compile(r"|Unnamed: \d+")

Kind = Literal["number", "boolean", "date", "text"]

# Values of one column and chunk: text as in the file, or numbers with NaN for missing ones.
Values = Sequence[str] | np.ndarray


class Rows(NamedTuple):
    """Some consecutive rows of a file."""

    columns: Mapping[str, Values]

    places: np.ndarray
    """Line of the file (CSV) or number of the row (Parquet) of each row, from 1."""

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.places)


class TableFile:
    """A file with rows and named columns.

    Attributes:
        path: The file.
        key: Key of the study file that names it.
        columns: Names of its columns, without those that have none.
        notes: How the file was interpreted, one line each.
        kinds: Kind of each column whose type the file declares.
        missing_values: Text that means a missing value.
    """

    place_name = "row"

    def __init__(self, path: str, key: str, columns: Sequence[str], missing_values: frozenset[str]):
        self.path, self.key = path, key
        self.columns = [name for name in columns if not INDEX_NAME.fullmatch(name)]
        self.missing_values = missing_values
        self.kinds: dict[str, Kind] = {}
        self.notes: list[str] = []
        if repeated := [name for name, count in Counter(self.columns).items() if count > 1]:
            raise self.error(f"has several columns with the name `{repeated[0]}`; rename them")
        if len(self.columns) < len(columns):
            numbers = [str(index) for index, name in enumerate(columns, 1) if INDEX_NAME.fullmatch(name)]
            self.notes.append(
                f"{path}: column {', '.join(numbers)} has no name, like the index of a data frame, and is not used"
            )

    def error(self, problem: str, place: int | None = None) -> UserError:
        """Return the error that the file has a problem, in the row at a place."""
        where = f", {self.place_name} {place}:" if place is not None else ""
        return UserError(f"{self.key}: {self.path}{where} {problem}")

    def chunks(self, names: Sequence[str]) -> Iterator[Rows]:
        """Yield all rows of some columns, in order."""
        raise NotImplementedError

    @property
    def num_rows(self) -> int | None:
        """The number of rows if it is known without reading them."""
        return None


def open_table(path: str, key: str, separator: str | None, missing_values: frozenset[str]) -> TableFile:
    """Open a CSV or a Parquet file, recognized by its first bytes.

    Args:
        path: The file; CSV may be compressed by gzip, bzip2 or xz.
        key: Key of the study file that names it, for messages.
        separator: Separator of CSV; None: the one that the first line has most of.
        missing_values: Text that means a missing value in CSV.

    Raises:
        UserError: The file cannot be read, is of another format, or has no usable header.
    """
    try:
        if Path(path).is_dir():
            raise UserError(f"{key}: {path} is a folder; name a CSV or Parquet file in it")
        with Path(path).open("rb") as stream:
            start = stream.read(8)
    except FileNotFoundError:
        raise UserError(f"{key}: {path} does not exist; paths are relative to the working folder")
    except OSError as error:
        raise UserError(f"{key}: {path} cannot be read ({error.strerror or error})")
    if not start:
        raise UserError(f"{key}: {path} is empty; name a CSV or Parquet file")
    if start.startswith(b"PAR1"):
        if separator is not None:
            raise UserError(f"data.separator: {path} is a Parquet file, which has no separator; remove the key")
        return ParquetFile(path, key)
    if start.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise UserError(f"{key}: {path} is a zip or Excel file; unpack it, or save the sheet as CSV (UTF-8)")
    if start.lstrip().startswith((b"{", b"[")):
        raise UserError(f"{key}: {path} is JSON; convert it to CSV, such as by pandas.read_json(…).to_csv(…)")
    return CsvFile(path, key, separator, missing_values)


class CsvFile(TableFile):
    """Text with a header line and separated columns; quotes are `"`. Spaces around names and values don't count."""

    place_name = "line"

    def __init__(self, path: str, key: str, separator: str | None, missing_values: frozenset[str]):
        self.path, self.key = path, key
        with self._open() as stream:
            header = stream.readline()
        self.separator = separator or _detect_separator(header)
        header_row = next(self._rows(), (1, []))[1]
        self._header = [name.strip() for name in header_row]
        super().__init__(path, key, self._header, missing_values)
        if header.lstrip().lower().startswith(("<!doctype", "<html", "<?xml")):
            raise self.error("is a web page or XML; download the data itself", 1)
        if len(header_row) < 2:
            seen = SEPARATORS.get(self.separator, repr(self.separator))
            raise self.error(f"has a single column (separator: {seen}); set data.separator, or add columns", 1)
        if all(_is_number(name) for name in self._header):
            raise self.error("has numbers instead of the names of columns; add a header line", 1)
        if separator is None and self.separator != ",":
            self.notes.append(f"{path}: columns are separated by {SEPARATORS[self.separator]}s")

    def chunks(self, names: Sequence[str]) -> Iterator[Rows]:
        """Yield all rows of some columns; values are text without surrounding spaces."""
        indices = {name: self._header.index(name) for name in names}
        size = max(1, min(CSV_CHUNK_ROWS, CHUNK_FIELDS // len(self._header)))
        rows: list[list[str]] = []
        lines: list[int] = []
        iterator = self._rows()
        next(iterator)  # the header
        for line, row in iterator:
            if len(row) != len(self._header):
                if not any(map(str.strip, row)) and len(row) < 2:
                    continue  # an empty line
                raise self.error(
                    f"has {len(row)} {'field' if len(row) == 1 else 'fields'} where the header has "
                    f"{len(self._header)}; check separators and quotes",
                    line,
                )
            rows.append(row)
            lines.append(line)
            if len(rows) == size:
                yield self._to_columns(rows, lines, indices)
                rows, lines = [], []
        if rows:
            yield self._to_columns(rows, lines, indices)

    def _to_columns(self, rows: list[list[str]], lines: list[int], indices: dict[str, int]) -> Rows:
        return Rows(
            {name: [row[index].strip() for row in rows] for name, index in indices.items()}, np.array(lines, np.int64)
        )

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield each row with the line that it begins at."""
        line = 1
        csv.field_size_limit(MAX_FIELD_LENGTH)  # of the process; 131,072 by default, which long texts exceed
        with self._open() as stream:
            reader = csv.reader(stream, delimiter=self.separator, strict=True, skipinitialspace=self.separator != "\t")
            try:
                for row in reader:
                    yield line, row
                    line = reader.line_num + 1
            except csv.Error as error:
                reason = str(error)
                fix = "close it, or double it if it is part of the text"
                if "unexpected end" in reason:
                    raise self.error(f"a quote is never closed; {fix}", line)
                if "field larger" in reason:
                    raise self.error(
                        f"a field has more than {MAX_FIELD_LENGTH:,} characters, perhaps because a quote is never "
                        f"closed; {fix}, or leave the column out of the file",
                        line,
                    )
                raise self.error(f"cannot be parsed ({reason}); check quotes and separators", line)

    @contextmanager
    def _open(self) -> Iterator[IO[str]]:
        """Open the text of the file; errors of reading and decoding become one line."""
        try:
            with self._open_bytes() as stream:
                start = stream.read(4096)
            if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in start:
                raise self.error("is not UTF-8 text (it has zero bytes, as UTF-16 or a binary file has)")
            with self._open_bytes() as stream, io.TextIOWrapper(stream, "utf-8-sig", newline="") as text:
                yield text
        except UnicodeDecodeError:
            line, offset = self._find_undecodable()
            raise self.error(
                f"byte {offset} of the line is not UTF-8; convert the file: iconv -f latin1 -t utf-8", line
            )
        except DECOMPRESSION_ERRORS as error:
            raise UserError(f"{self.key}: {self.path} is corrupt or incomplete ({error}); get it again")
        except OSError as error:
            raise UserError(f"{self.key}: {self.path} cannot be read ({error.strerror or error})")

    def _open_bytes(self) -> Any:
        with Path(self.path).open("rb") as stream:
            start = stream.read(6)
        for magic, opener in OPENERS.items():
            if start.startswith(magic):
                return opener(self.path, "rb")
        return Path(self.path).open("rb")

    def _find_undecodable(self) -> tuple[int, int]:
        """Return the line and the byte in it, both from 1, that cannot be decoded."""
        with self._open_bytes() as stream:
            for number, line in enumerate(stream, 1):
                try:
                    line.decode()
                except UnicodeDecodeError as error:
                    return number, error.start + 1
        raise AssertionError("all lines can be decoded")


def _detect_separator(header: str) -> str:
    """Return the separator that a header line has most of, outside quotes; a comma if it has none."""
    outside = "".join(header.split('"')[::2])
    return max(SEPARATORS, key=lambda separator: (outside.count(separator), separator == ","))


class ParquetFile(TableFile):
    """A Parquet file, whose columns have types."""

    def __init__(self, path: str, key: str):
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(path) as file:
                schema = file.schema_arrow
                self._num_rows = file.metadata.num_rows
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{key}: {path} cannot be read as Parquet ({_first_line(error)}); get it again")
        super().__init__(path, key, schema.names, frozenset({""}))
        self._types = dict(zip(schema.names, schema.types, strict=True))
        self.columns = [name for name in self.columns if not name.startswith("__index_level_")]
        self.kinds = {name: kind for name in self.columns if (kind := _arrow_kind(self._types[name]))}

    @property
    def num_rows(self) -> int:
        """The number of rows."""
        return self._num_rows

    def chunks(self, names: Sequence[str]) -> Iterator[Rows]:
        """Yield all rows of some columns; text as a list, all else as float64."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        for name in names:
            if name not in self.kinds:
                raise self.error(
                    f"has the column `{name}` of type {self._types[name]}, but only numbers, booleans, dates and text "
                    "can be used; leave it out with data.exclude"
                )
        size = max(1, min(CHUNK_ROWS, CHUNK_FIELDS // max(1, len(names))))
        done = 0
        try:
            with pq.ParquetFile(self.path) as file:
                for batch in file.iter_batches(size, columns=list(names), use_threads=False):
                    columns = {name: _from_arrow(batch.column(name)) for name in names}
                    yield Rows(columns, np.arange(done + 1, done + 1 + batch.num_rows))
                    done += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            raise self.error(f"cannot be read as Parquet ({_first_line(error)}); get it again")


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _arrow_kind(arrow_type: Any) -> Kind | None:
    import pyarrow as pa

    types = pa.types
    if types.is_dictionary(arrow_type):
        return _arrow_kind(arrow_type.value_type)
    if types.is_boolean(arrow_type):
        return "boolean"
    if types.is_integer(arrow_type) or types.is_floating(arrow_type) or types.is_decimal(arrow_type):
        return "number"
    if types.is_date(arrow_type) or types.is_timestamp(arrow_type):
        return "date"
    if types.is_string(arrow_type) or types.is_large_string(arrow_type) or types.is_string_view(arrow_type):
        return "text"
    return None


def _from_arrow(array: Any) -> Values:
    import pyarrow as pa

    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    kind = _arrow_kind(array.type)
    if kind == "text":
        return ["" if value is None else value for value in array.to_pylist()]
    if kind == "date":
        microseconds = array.cast(pa.timestamp("us"), safe=False).cast(pa.int64()).cast(pa.float64(), safe=False)
        return microseconds.to_numpy(zero_copy_only=False) / (1e6 * SECONDS_PER_DAY)
    if kind == "boolean":
        array = array.cast(pa.int8())
    return np.asarray(array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), np.float64)


class Place(NamedTuple):
    """A value of a file that a message quotes."""

    file: TableFile
    place: int
    value: str


@dataclass
class ColumnScan:
    """What the values of a column are, in all files.

    Attributes:
        counts: Number of values of each kind, and of missing ones.
        first: The first value of each kind, and the first missing one.
        infinite: The first number that is not finite.
        declared: The kind that the files declare.
        spellings: The booleans as `to_texts` returns them: programs write `true`, `True` or `TRUE`.
    """

    name: str
    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, Place] = field(default_factory=dict)
    infinite: Place | None = None
    decimal_commas: int = 0
    declared: Kind | None = None
    spellings: set[str] = field(default_factory=set)

    def add(self, file: TableFile, values: Values, places: np.ndarray) -> None:
        """Count the values of a chunk."""
        numbers = values if isinstance(values, np.ndarray) else _parse_all_numbers(values, file.missing_values)
        if numbers is not None:
            self.declared = file.kinds.get(self.name, self.declared)
            missing = np.isnan(numbers)
            self._add(file, "missing", values, places, missing)
            self._add(file, self.declared or "number", values, places, ~missing)
            if file.kinds.get(self.name) == "boolean":
                self.spellings.update(_name(value, "boolean") for value in np.unique(numbers[~missing]))
            self._note_infinite(file, numbers, values, places)
            return
        assert not isinstance(values, np.ndarray)
        if file.kinds.get(self.name) == "text":
            self.declared = "text"
            kinds: dict[str, str] = dict.fromkeys(values, "text")
        else:
            kinds = {value: classify(value) for value in set(values)}
        kinds |= dict.fromkeys(file.missing_values & kinds.keys(), "missing")
        self.spellings.update(value for value, kind in kinds.items() if kind == "boolean")
        for kind in set(kinds.values()):
            self._add(file, kind, values, places, np.array([kinds[value] == kind for value in values]))
        self.decimal_commas += sum(DECIMAL_COMMA.fullmatch(value) is not None for value in values)
        if "number" in kinds.values():
            self._note_infinite(file, to_numbers(values, "number", file.missing_values, False), values, places)

    def _add(self, file: TableFile, kind: str, values: Values, places: np.ndarray, mask: np.ndarray) -> None:
        count = int(np.count_nonzero(mask))
        if count:
            self.counts[kind] += count
            index = int(mask.argmax())
            self.first.setdefault(kind, Place(file, int(places[index]), str(values[index])))

    def _note_infinite(self, file: TableFile, numbers: np.ndarray, values: Values, places: np.ndarray) -> None:
        infinite = np.isinf(numbers)
        if self.infinite is None and infinite.any():
            index = int(infinite.argmax())
            self.infinite = Place(file, int(places[index]), str(values[index]))

    @property
    def num_present(self) -> int:
        """Number of values that are not missing."""
        return self.counts.total() - self.counts["missing"]

    @property
    def is_number(self) -> bool:
        """Whether all values that are not missing are numbers."""
        return self.counts["number"] == self.num_present

    @property
    def has_several_spellings(self) -> bool:
        """Whether all values that are not missing are booleans, and one of them is spelled in several ways."""
        is_boolean = self.counts["boolean"] == self.num_present
        return is_boolean and len({text.lower() for text in self.spellings}) < len(self.spellings)

    def kind(self) -> Kind:
        """Return the kind of all values. Raises UserError if they are mixed, infinite or all missing."""
        if not self.num_present:
            place = self.first["missing"]
            raise place.file.error(f"has no values in column `{self.name}`; leave it out with data.exclude")
        kinds = [kind for kind in ("number", "boolean", "date", "text") if self.counts[kind]]
        if self.declared and kinds == [self.declared]:
            kind: Any = self.declared
        elif len(kinds) == 1:
            kind = kinds[0]
        else:
            kind = "text"
            for main, name in (("number", "a number"), ("date", "a date")):
                if 2 * self.counts[main] >= self.num_present:
                    place = min((self.first[kind] for kind in kinds if kind != main), key=lambda first: first.place)
                    raise place.file.error(
                        f"{quote(place.value)} in column `{self.name}` is not {name}, as {self.counts[main]:,} of "
                        f"{self.num_present:,} values are; fix it, add it to data.missing_values, or the column to "
                        "data.categorical",
                        place.place,
                    )
        if kind == "text" and 2 * self.decimal_commas >= self.num_present:
            place = self.first["text"]
            raise place.file.error(
                f"{quote(place.value)} in column `{self.name}` has a comma, as decimal separator or between thousands; "
                "write a point or remove it",
                place.place,
            )
        if kind == "number" and self.infinite:
            place = self.infinite
            raise place.file.error(
                f"{quote(place.value)} in column `{self.name}` is not a finite number; fix it, or add it to "
                "data.missing_values",
                place.place,
            )
        return kind


def quote(value: str) -> str:
    """Return a value of a file as it is quoted in a message: on one line, shortened."""
    text = " ".join(value.split())
    return f"'{text[:40]}…'" if len(text) > 40 else f"'{text}'"


def classify(value: str) -> Kind:
    """Return the kind of a value that is not missing."""
    if _is_number(value):
        return "number"
    if value.lower() in ("true", "false"):
        return "boolean"
    if DATE.fullmatch(value):
        try:
            datetime.fromisoformat(value)
        except ValueError:  # such as a 30th of February
            return "text"
        return "date"
    return "text"


def _is_number(value: str) -> bool:
    """Return whether text is a number; NaN is one only by the words of `missing_values`."""
    try:
        return "_" not in value and not math.isnan(float(value))
    except ValueError:
        return False


def _parse_all_numbers(values: Sequence[str], missing_values: frozenset[str]) -> np.ndarray | None:
    """Return text as numbers, float64, or None if some of it is missing or no number."""
    if not missing_values.isdisjoint(values):  # such as -999
        return None
    try:
        numbers = np.fromiter(map(float, values), np.float64, len(values))
    except ValueError:
        return None
    return None if np.isnan(numbers).any() or "_" in "".join(values) else numbers


def to_numbers(values: Values, kind: Kind, missing_values: frozenset[str], strict: bool = True) -> np.ndarray:
    """Return the values of a column as numbers.

    Args:
        values: As in Rows.
        kind: What the values are. Booleans are 0 and 1; dates are days since 1970-01-01, UTC unless they have
            an offset.
        missing_values: Text that means a missing value.
        strict: Whether other text is an error instead of NaN.

    Returns:
        (n,), float64, with NaN for missing values.
    """
    if isinstance(values, np.ndarray):
        return values
    if kind == "number" and (numbers := _parse_all_numbers(values, missing_values)) is not None:
        return numbers
    parsed = {
        value: math.nan if value in missing_values or (not strict and not _is_number(value)) else _parse(value, kind)
        for value in set(values)
    }
    return np.fromiter((parsed[value] for value in values), np.float64, len(values))


def _parse(value: str, kind: Kind) -> float:
    if kind == "boolean":
        return float(value.lower() == "true")
    if kind == "date":
        moment = datetime.fromisoformat(value)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return moment.timestamp() / SECONDS_PER_DAY
    return float(value)


def to_texts(values: Values, kind: Kind, missing_values: frozenset[str]) -> list[str | None]:
    """Return the values of a column as the names of categories, None for missing ones.

    Args:
        values: As in Rows.
        kind: What the values are; numbers that are integers are written without a decimal point.
        missing_values: Text that means a missing value.
    """
    if isinstance(values, np.ndarray):
        return [None if math.isnan(value) else _name(value, kind) for value in values.tolist()]
    return [None if value in missing_values else value for value in values]


def _name(value: float, kind: Kind) -> str:
    if kind == "boolean":
        return str(bool(value))
    if kind == "date":
        text = datetime.fromtimestamp(value * SECONDS_PER_DAY, UTC).isoformat(" ")
        return text.removesuffix("+00:00").removesuffix(" 00:00:00")
    return str(int(value)) if value.is_integer() else repr(value)


def require_columns(file: TableFile, names: Mapping[str, Sequence[str]]) -> None:
    """Raise UserError for the first column that a file lacks; `names` has the columns of each key."""
    for key, columns in names.items():
        for name in columns:
            if name not in file.columns:
                raise UserError(
                    f"{key}: {file.path} has no column `{name}`; its columns are {join_names(file.columns, 12)}"
                )
