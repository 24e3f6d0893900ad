"""Tables: CSV and Parquet files with an example per row."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from batchscape.config.data.tables import TableConfig, TableSection
from batchscape.data.prepared import CATEGORIES, INPUTS, TARGETS, WEIGHTS
from batchscape.data.scratch import Scratch
from batchscape.data.source import (
    DEFAULT_OPTIONS,
    MAX_UNCHECKED_CLASSES,
    LoadOptions,
    ManifestEntry,
    RawDataset,
    join_names,
)
from batchscape.data.spec import SIDE_OF_WORD, SIDES, TEST, TRAIN, VALIDATION, DataSpec
from batchscape.data.table_files import (
    ColumnScan,
    Kind,
    Rows,
    TableFile,
    open_table,
    quote,
    require_columns,
    to_numbers,
    to_texts,
)
from batchscape.data.table_fit import Levels, TableFit
from batchscape.errors import UserError
from batchscape.io.files import hash_file
from batchscape.runtime.read_progress import Progress

# Dropped rows that the manifest lists for each file.
MAX_LISTED_ROWS = 1_000
# Beyond it, float64 has no number for each integer.
MAX_INTEGER = 2.0**53


log = logging.getLogger(__name__)


def load(config: TableConfig, options: LoadOptions = DEFAULT_OPTIONS) -> RawDataset:
    """Return the rows of the files: those of `path`, then those for validation, then those for testing.

    Raises UserError if a file, a row or a column cannot be used, or the columns don't fit the task.
    """
    return read_table(config, open_tables(config), options)


def open_tables(config: TableConfig) -> list[tuple[TableFile, str]]:
    """Return the files with the side of each; the side of `path` is `train` if another file has validation rows."""
    missing_values = frozenset(["", *config.missing_values])
    sides = {"path": TRAIN if config.validation_path else "", "validation_path": VALIDATION, "test_path": TEST}
    return [
        (open_table(path, f"data.{key}", config.separator, missing_values), sides[key])
        for key, path in config.files.items()
    ]


@dataclass(frozen=True)
class Columns:
    """What the columns of a table are used for."""

    features: tuple[str, ...]
    target: tuple[str, ...]
    others: Mapping[str, str]
    """The columns of weights, groups and sides, by key."""

    @property
    def all(self) -> list[str]:
        return [*self.features, *self.target, *self.others.values()]


def select_columns(config: TableSection, files: Sequence[TableFile]) -> Columns:
    """Return what the columns are used for. Raises UserError if a file lacks one."""
    main = files[0]
    named = {
        "data.target": config.target,
        **{f"data.{key}": [column] for key, column in config.other_columns.items()},
        "data.features": config.features or (),
        "data.categorical": config.categorical,
    }
    require_columns(main, {**named, "data.exclude": config.exclude})
    used = {*config.target, *config.other_columns.values(), *config.exclude}
    features = config.features or tuple(name for name in main.columns if name not in used)
    if not features:
        raise UserError(f"data.features: {main.path} has no columns besides the target and those that are excluded")
    for file in files[1:]:
        require_columns(file, {**named, "data.features": features})
        extra = [name for name in file.columns if name not in main.columns]
        if extra:
            file.notes.append(f"{file.path}: columns that {main.path} lacks are not used: {join_names(extra)}")
    return Columns(tuple(features), config.target, config.other_columns)


def scan_columns(
    config: TableSection, files: Sequence[TableFile], columns: Columns, task: str
) -> tuple[dict[str, Kind], dict[str, ColumnScan]]:
    """Read all rows once; return the kind of each column, and what its values are.

    Raises UserError for values that are mixed, infinite, or missing where they may not be, and for columns that don't
    fit the task.
    """
    scans = {name: ColumnScan(name) for name in columns.all}
    num_rows = 0
    progress = Progress("rows")
    for file in files:
        rows_before = num_rows
        for rows in file.chunks(columns.all):
            for name, values in rows.columns.items():
                scans[name].add(file, values, rows.places)
            num_rows += len(rows)
            progress.update(len(rows))
        if num_rows == rows_before:
            raise file.error("has no rows")
    progress.close()
    texts = {config.other_columns.get("group_column"), config.other_columns.get("split_column"), *config.categorical}
    texts -= {*config.target}  # named there to confirm that its integers are classes
    kinds: dict[str, Kind] = {name: "text" if name in texts else scan.kind() for name, scan in scans.items()}
    for name in columns.target if task == "regression" else ():
        if name in config.categorical:
            raise UserError(
                f"data.categorical: `{name}` is the target of a regression; remove it there, or write "
                "`task: {name: classification}`"
            )
        _require_numbers(scans[name], kinds[name], "data.target")
    if "weight" in columns.others:
        _require_numbers(scans[columns.others["weight"]], kinds[columns.others["weight"]], "data.weight")
    if config.missing == "error":
        incomplete = [scan for scan in scans.values() if scan.counts["missing"]]
        if incomplete:
            scan = min(incomplete, key=lambda scan: files.index(scan.first["missing"].file))
            place = scan.first["missing"]
            others = f"; columns with missing values: {join_names(scan.name for scan in incomplete)}"
            raise UserError(
                f"data.missing: {place.file.path}, {place.file.place_name} {place.place}: the column `{scan.name}` has "
                f"no value, as in {scan.counts['missing']:,} of {num_rows:,} rows{others if incomplete[1:] else ''}; "
                "write `missing: impute` or `missing: drop`"
            )
    return kinds, scans


def _require_numbers(scan: ColumnScan, kind: Kind, key: str) -> None:
    if kind in ("text", "date"):
        place = scan.first[kind]
        hint = "; write `task: {name: classification}`, or name a column of numbers" if key == "data.target" else ""
        raise UserError(
            f"{key}: {place.file.path}, {place.file.place_name} {place.place}: {quote(place.value)} in column "
            f"`{scan.name}` is not a number{hint}"
        )


def require_task(config: TableSection, task: str) -> None:
    """Raise UserError if a task does not fit the keys of the section."""
    if task == "classification" and len(config.target) > 1:
        raise UserError(f"data.target: {len(config.target)} columns, but classification has one; name one column")
    if task == "classification" and config.transform != "none":
        raise UserError(
            f"data.target_transform: {config.transform} is for numbers, and the task is classification; remove "
            "it, or write `task: {name: regression}`"
        )


class _Reader:
    """The second reading of the rows, into arrays on disk."""

    def __init__(
        self,
        config: TableSection,
        columns: Columns,
        kinds: Mapping[str, Kind],
        scans: Mapping[str, ColumnScan],
        options: LoadOptions,
    ):
        self.config, self.columns, self.kinds, self.scans, self.task = config, columns, kinds, scans, options.task
        folder = options.folder
        self.number_names = [name for name in columns.features if kinds[name] != "text"]
        self.category_names = [name for name in columns.features if kinds[name] == "text"]
        self.numbers = Scratch((len(self.number_names),), np.float64, folder)
        self.categories = Scratch((len(self.category_names),), np.int32, folder)
        is_class = self.task == "classification"
        shape = () if is_class or len(columns.target) == 1 else (len(columns.target),)
        self.targets = Scratch(shape, np.int32 if is_class else np.float64, folder)
        self.weights = Scratch((), np.float64, folder)
        self.sides = Scratch((), np.int8, folder)
        self.groups = Scratch((), np.int64, folder)
        self.places = Scratch((), np.int64, folder)
        self.levels: dict[str, Levels] = {}
        self.entries: list[ManifestEntry] = []
        self.first_rows: list[tuple[int, TableFile]] = []

    def read(self, file: TableFile, side: str) -> None:
        """Add the usable rows of a file, and its entries."""
        self.first_rows.append((len(self.places), file))
        dropped: list[ManifestEntry] = []
        num_dropped = 0
        for rows in file.chunks(self.columns.all):
            is_missing = self._find_missing(file, rows)
            used = ~np.logical_or.reduce(list(is_missing.values()))
            self._add(file, rows, np.flatnonzero(used), side)
            for index in np.flatnonzero(~used):
                num_dropped += 1
                if len(dropped) < MAX_LISTED_ROWS:
                    name = next(name for name, mask in is_missing.items() if mask[index])
                    label = f"{file.path}, {file.place_name} {rows.places[index]}"
                    dropped.append(ManifestEntry(label, "", "", f"missing value: {name}", side))
        if num_dropped > len(dropped):
            more = num_dropped - len(dropped)
            dropped.append(ManifestEntry(f"{file.path}, other rows", "", "", "missing value", side, more))
        count = len(self.places) - self.first_rows[-1][0]
        if not count:
            raise file.error(f"has no usable rows: in each of the {num_dropped:,} a value is missing")
        entry = ManifestEntry(file.path, hash_file(Path(file.path)), "", "", side, count)
        self.entries += [entry, *dropped]

    def _find_missing(self, file: TableFile, rows: Rows) -> dict[str, np.ndarray]:
        """Return which rows are dropped for want of a value, by column."""
        columns = self.columns.all
        if self.config.missing == "impute":
            columns = [*self.columns.target, *self.columns.others.values()]
        masks = {}
        for name in columns:
            values = rows.columns[name]
            if isinstance(values, np.ndarray):
                masks[name] = np.isnan(values)
            else:
                masks[name] = np.array([value in file.missing_values for value in values], bool)
        return masks

    def _add(self, file: TableFile, rows: Rows, used: np.ndarray, side: str) -> None:
        def numbers(names: Sequence[str]) -> np.ndarray:
            columns = [to_numbers(rows.columns[name], self.kinds[name], file.missing_values) for name in names]
            return np.stack(columns, axis=1)[used] if columns else np.empty((len(used), 0))

        def codes(name: str) -> np.ndarray:
            texts = self._texts(file, rows, name)
            if name not in self.levels:
                is_target = name in self.columns.target
                self.levels[name] = Levels(file, name, "name a column of classes") if is_target else Levels(file, name)
            return self.levels[name].encode(texts[index] for index in used)

        places = rows.places[used]
        self.numbers.append(numbers(self.number_names))
        encoded = [codes(name) for name in self.category_names]
        self.categories.append(np.stack(encoded, axis=1) if encoded else np.empty((len(used), 0), np.int32))
        if self.task == "classification":
            self._require_integers(file, rows, used)
            self.targets.append(codes(self.columns.target[0]))
        else:
            targets = numbers(self.columns.target)
            if self.config.transform == "log":
                for index, name in enumerate(self.columns.target):
                    self._require_positive(file, "data.target_transform", name, targets[:, index], places)
            self.targets.append(targets if self.targets.shape else targets[:, 0])
        if weight := self.columns.others.get("weight"):
            weights = numbers([weight])[:, 0]
            self._require_positive(file, "data.weight", weight, weights, places)
            self.weights.append(weights)
        if group := self.columns.others.get("group_column"):
            texts = self._texts(file, rows, group)
            self.groups.append(hash_groups([texts[index] for index in used]))
        self.sides.append(self._read_sides(file, rows, used, side))
        self.places.append(places)

    def _texts(self, file: TableFile, rows: Rows, name: str) -> list[str | None]:
        """Return values as the names of categories or classes.

        Of numbers, `1.0` and `1` are the same, and of booleans `true` and `TRUE`.
        """
        values = rows.columns[name]
        if self.kinds[name] == "number":  # a class, which is an integer
            values = to_numbers(values, "number", file.missing_values)
        if isinstance(values, np.ndarray) and (beyond := np.abs(values) > MAX_INTEGER).any():
            place = int(beyond.argmax())
            raise file.error(
                f"{values[place]:.0f} in column `{name}` is beyond 2^53, where different integers are one number; "
                "write text, such as id123",
                int(rows.places[place]),
            )
        texts = to_texts(values, file.kinds.get(name, self.kinds[name]), file.missing_values)
        if self.scans[name].is_number and not isinstance(values, np.ndarray):
            texts = [text and text.removesuffix(".0") for text in texts]
        if self.scans[name].has_several_spellings:
            texts = [text and text.capitalize() for text in texts]
        return texts

    def _require_integers(self, file: TableFile, rows: Rows, used: np.ndarray) -> None:
        name = self.columns.target[0]
        if self.kinds[name] != "number":
            return
        values = to_numbers(rows.columns[name], "number", file.missing_values)
        measured = used[values[used] != np.floor(values[used])]
        if len(measured):
            raise UserError(
                f"data.target: {file.path}, {file.place_name} {rows.places[measured[0]]}: "
                f"{quote(str(rows.columns[name][measured[0]]))} in column `{name}` is a measured value, no class; "
                "write `task: {name: regression}`"
            )

    def _require_positive(self, file: TableFile, key: str, name: str, values: np.ndarray, places: np.ndarray) -> None:
        bad = np.flatnonzero(~(values > 0))
        if len(bad):
            problem, fix = {
                "data.weight": ("is no weight, as it is not positive", "remove the row, or give it a small weight"),
                "data.target_transform": ("has no logarithm", "remove the row or the key"),
            }[key]
            raise UserError(
                f"{key}: {file.path}, {file.place_name} {places[bad[0]]}: {values[bad[0]]:g} in column `{name}` "
                f"{problem}; {fix}"
            )

    def _read_sides(self, file: TableFile, rows: Rows, used: np.ndarray, side: str) -> np.ndarray:
        column = self.columns.others.get("split_column")
        if column is None:
            return np.full(len(used), SIDES.index(side) if side else -1, np.int8)
        texts = to_texts(rows.columns[column], file.kinds.get(column, "text"), file.missing_values)
        sides = np.empty(len(used), np.int8)
        for row, index in enumerate(used):
            name = SIDE_OF_WORD.get((texts[index] or "").lower())
            if name is None:
                raise UserError(
                    f"data.split_column: {file.path}, {file.place_name} {rows.places[index]}: "
                    f"{quote(str(texts[index]))} in column `{column}` is no side of the split; write train, validation "
                    "or test"
                )
            sides[row] = SIDES.index(name)
        return sides

    def locate(self, row: int) -> str:
        """Return the place of a row in its file."""
        file = next(file for first, file in reversed(self.first_rows) if first <= row)
        return f"{file.path}, {file.place_name} {self.places.read()[row]}"


def read_table(
    config: TableSection, opened: Sequence[tuple[TableFile, str]], options: LoadOptions = DEFAULT_OPTIONS
) -> RawDataset:
    """Return the rows of files, each with the side that it gives, or "".

    Args:
        config: What the columns are used for.
        opened: The files; the first one decides which columns there are.
        options: The task, and where scratch files are.

    Raises:
        UserError: As `load` does.
    """
    task = options.task
    require_task(config, task)
    files = [file for file, _ in opened]
    columns = select_columns(config, files)
    kinds, scans = scan_columns(config, files, columns, task)
    reader = _Reader(config, columns, kinds, scans, options)
    for file, side in opened:
        reader.read(file, side)
    for name in reader.category_names:
        if name not in config.categorical:
            reader.levels[name].require_repeats("feature", "add it to data.exclude, or if not, to data.categorical")
    notes = [note for file in files for note in file.notes] + _describe_columns(config, columns, kinds, scans)
    arrays = {INPUTS: reader.numbers.read(), CATEGORIES: reader.categories.read(), TARGETS: reader.targets.read()}
    if "weight" in columns.others:
        arrays[WEIGHTS] = reader.weights.read()
    classes: tuple[str, ...] = ()
    if task == "classification":
        levels = reader.levels[columns.target[0]]
        name = columns.target[0]
        if kinds[name] == "number" and name not in config.categorical:
            _reject_many_integers(name, levels)
        classes, arrays[TARGETS] = _sort_classes(levels, kinds[name], arrays[TARGETS])
    fit = TableFit(config, reader.number_names, [reader.levels[name] for name in reader.category_names], classes)
    sides = reader.sides.read()
    return RawDataset(
        DataSpec("columns", (), "class" if classes else "numbers", classes),
        arrays,
        reader.entries,
        tuple(notes),
        sides if (sides >= 0).any() else None,
        number_groups(reader.groups.read()) if "group_column" in columns.others else None,
        fit=fit,
        locate=reader.locate,
        key=files[0].key,
        split_by=_split_by(config),
    )


def hash_groups(texts: Sequence[str | None]) -> np.ndarray:
    """Return the first 64 bits of the BLAKE2 hash of each text, (n,) int64, which need no memory for each group.

    Of ten million groups two have the same hash with a probability of 3 in a million; they are then one group.
    """
    hashes = {text: hashlib.blake2b(str(text).encode(), digest_size=8).digest() for text in set(texts)}
    return np.frombuffer(b"".join(hashes[text] for text in texts), "<i8").astype(np.int64)


def number_groups(hashes: np.ndarray) -> np.ndarray:
    """Return groups, (n,) integers, numbered in order of their first row, in which `split` draws them."""
    first, codes = np.unique(hashes, return_index=True, return_inverse=True)[1:]
    return np.argsort(np.argsort(first))[codes]


def _reject_many_integers(name: str, levels: Levels) -> None:
    """Raise UserError if an integer target has many values: in a table these are mostly measured, such as ages."""
    values = list(map(int, levels.names))
    if len(values) > MAX_UNCHECKED_CLASSES:
        raise UserError(
            f"data.target: column `{name}` has {len(values)} different integers from {min(values)} to {max(values)}; "
            f"predict them with `task: {{name: regression}}`, or if they are classes, add `{name}` to data.categorical"
        )


def _sort_classes(levels: Levels, kind: Kind, codes: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the names of the classes, in order of numbers or text, and the targets, (n,) int64, as their indices."""
    names = levels.names
    if kind == "number":
        order = sorted(range(len(names)), key=lambda code: int(names[code]))
    else:
        levels.require_repeats("target", "name a column of classes")
        order = sorted(range(len(names)), key=names.__getitem__)
    ranks = np.empty(len(names), np.int64)
    ranks[order] = np.arange(len(names))
    return tuple(names[code] for code in order), ranks[codes]


def _describe_columns(
    config: TableSection, columns: Columns, kinds: Mapping[str, Kind], scans: Mapping[str, ColumnScan]
) -> list[str]:
    """Return lines on what the features were taken for."""
    named = {kind: [name for name in columns.features if kinds[name] == kind] for kind in ("number", "text")}
    parts = [f"numbers: {join_names(named['number'], 12)}"] if named["number"] else []
    parts += [f"categories: {join_names(named['text'], 12)}"] if named["text"] else []
    for kind, meaning in (("date", "dates, as days since 1970-01-01"), ("boolean", "booleans, as 0 and 1")):
        names = [name for name in columns.features if kinds[name] == kind]
        parts += [f"{meaning}: {join_names(names, 12)}"] if names else []
    lines = [f"columns: {'; '.join(parts)}"]
    imputed = {name: scans[name].counts["missing"] for name in columns.features if scans[name].counts["missing"]}
    if config.missing == "impute" and imputed:
        counts = join_names([f"{name} ({count:,})" for name, count in imputed.items()], 12)
        lines.append(f"missing values are imputed: {counts}")
    return lines


def _split_by(config: TableSection) -> str:
    if "split_column" in config.other_columns:
        return "data.split_column"
    return " and ".join(f"data.{key}" for key in config.files if key != "path") or "the source"
