"""The prepared data of a study: one safetensors file that all of its jobs map, sharing one copy in memory.

The file is written chunk by chunk and mapped for reading, so that neither needs memory for all of it.
"""

import hashlib
import json
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from batchscape.data.moments import Moments
from batchscape.data.spec import SIDES, TEST, TRAIN, VALIDATION, DataSpec
from batchscape.errors import UserError
from batchscape.io.files import write_atomically

if TYPE_CHECKING:  # reports read digests without torch
    from batchscape.data.dataset import Dataset

INPUTS, CATEGORIES, TARGETS, WEIGHTS = ARRAYS = ("inputs", "categories", "targets", "weights")

# Some examples: arrays by name, as in `Dataset.arrays`; the first axis is the example.
Chunk = Mapping[str, np.ndarray]

# Bytes of examples that are in memory at once, at most, besides a few copies of as many.
CHUNK_BYTES = 2**23
MAX_CHUNK_ROWS = 2**14

# Names of data types in safetensors files.
DTYPES = {"uint8": "U8", "int16": "I16", "int32": "I32", "int64": "I64", "float32": "F32"}
NUMPY_DTYPES = {name: np.dtype(dtype) for dtype, name in DTYPES.items()}

# Digits of a variance: fewer than those that depend on how examples were divided into chunks.
VARIANCE_DIGITS = 12

# Longest header that is read; of a file of another kind the first eight bytes are any number.
MAX_HEADER_BYTES = 100 * 2**20


def token_dtype(vocabulary: int) -> np.dtype:
    """Return the smallest data type that holds the tokens of a vocabulary.

    It is one that torch can index on every device: uint16 is not.
    """
    return np.dtype(np.uint8 if vocabulary <= 2**8 else np.int16 if vocabulary <= 2**15 else np.int32)


@dataclass(frozen=True)
class PreparedData:
    """All sides of the split.

    Attributes:
        spec: What an example is.
        train: The examples to train on.
        validation: The examples that settings and the best weights are chosen by.
        test: The examples that choose nothing; None if the study has none.
    """

    spec: DataSpec
    train: "Dataset"
    validation: "Dataset"
    test: "Dataset | None" = None

    @property
    def sides(self) -> "dict[str, Dataset]":
        """The sides that there are, by name."""
        sides = {TRAIN: self.train, VALIDATION: self.validation, TEST: self.test}
        return {name: side for name, side in sides.items() if side is not None}


@dataclass(frozen=True)
class _Entry:
    """An array of a file: its name, such as `train/inputs`, data type, shape and place."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    start: int
    """Bytes from the first array to this one."""

    @property
    def stop(self) -> int:
        return self.start + self.dtype.itemsize * int(np.prod(self.shape, dtype=np.int64))

    @property
    def row_bytes(self) -> int:
        return self.dtype.itemsize * int(np.prod(self.shape[1:], dtype=np.int64))


def write_chunks(
    path: Path, spec: DataSpec, counts: Mapping[str, int], chunks: Mapping[str, Iterable[Chunk]]
) -> DataSpec:
    """Write prepared data atomically, chunk by chunk, with a hash of its content. Equal data gives equal bytes.

    Args:
        path: The safetensors file, with the arrays `train/inputs`, `train/targets` and so on.
        spec: What an example is; `target_variance` is computed here.
        counts: Number of examples of each side. There is no array of a side of 0.
        chunks: The examples of each side, in order. All have arrays of the same names, data types (see `DTYPES`) and
            shapes, except for the first axis.

    Returns:
        The spec as written.

    Raises:
        ValueError: The chunks are not those that `counts` and the first chunk announce.
    """
    sides = [side for side in SIDES if counts.get(side)]

    def write(partial: Path) -> None:
        nonlocal spec
        streams = {side: iter(chunks[side]) for side in sides}
        first = next(streams[sides[0]])
        entries = _lay_out(first, {side: counts[side] for side in sides})
        if spec.targets == "numbers":  # the longest text that it can have, to reserve the place of the header
            spec = replace(spec, target_variance=dict.fromkeys(sides, -1.23456789012e-300))
        size = len(_header(spec, entries, "0" * 64))
        hashes = {entry.name: hashlib.sha256() for entry in entries}
        variances = {}
        with partial.open("wb") as stream:
            stream.truncate(size + entries[-1].stop)
            for side in sides:
                start, targets = 0, Moments(math.prod(spec.target_shape))
                for chunk in [first] if side == sides[0] else []:
                    start = _write_chunk(stream, size, entries, hashes, side, start, chunk)
                    add_targets(targets, chunk)
                for chunk in streams[side]:
                    start = _write_chunk(stream, size, entries, hashes, side, start, chunk)
                    add_targets(targets, chunk)
                if start != counts[side]:
                    raise ValueError(f"{start} examples of side {side}, not {counts[side]}")
                variances[side] = _mean_variance(targets)
            if spec.targets == "numbers":
                spec = replace(spec, target_variance=variances)
            digest = hashlib.sha256(json.dumps(asdict(spec)).encode())
            for entry in entries:
                digest.update(f"{entry.name} {entry.dtype} {entry.shape} {hashes[entry.name].hexdigest()}".encode())
            stream.seek(0)
            stream.write(_header(spec, entries, digest.hexdigest(), size))

    write_atomically(path, write)
    return spec


def _lay_out(chunk: Chunk, counts: Mapping[str, int]) -> list[_Entry]:
    """Return the arrays of a file in an order in which each is aligned to its data type without gaps."""
    arrays = [
        (f"{side}/{name}", chunk[name], count) for side, count in counts.items() for name in ARRAYS if name in chunk
    ]
    entries: list[_Entry] = []
    for name, array, count in sorted(arrays, key=lambda item: -item[1].dtype.itemsize):
        if array.dtype.name not in DTYPES:
            raise ValueError(f"{name} is {array.dtype}")
        entries.append(_Entry(name, array.dtype, (count, *array.shape[1:]), entries[-1].stop if entries else 0))
    return entries


def _header(spec: DataSpec, entries: Sequence[_Entry], digest: str, size: int = 0) -> bytes:
    """Return the start of the file up to the first array, padded to `size` or to a multiple of 64 bytes."""
    # One entry of metadata, because other writers of safetensors store several in varying order.
    about = json.dumps({"spec": asdict(spec), "sha256": digest})
    header: dict[str, Any] = {"__metadata__": {"about": about}}
    for entry in entries:
        header[entry.name] = {
            "dtype": DTYPES[entry.dtype.name],
            "shape": entry.shape,
            "data_offsets": (entry.start, entry.stop),
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    size = size or -(-(8 + len(text)) // 64) * 64
    return (size - 8).to_bytes(8, "little") + text.ljust(size - 8)


def _write_chunk(
    stream: BinaryIO,
    offset: int,
    entries: Sequence[_Entry],
    hashes: Mapping[str, Any],
    side: str,
    start: int,
    chunk: Chunk,
) -> int:
    """Write examples from row `start` of a side; return the row after them."""
    names = [entry.name for entry in entries if entry.name.startswith(f"{side}/")]
    if {f"{side}/{name}" for name in chunk} != set(names):
        raise ValueError(f"arrays {', '.join(chunk)}, not {', '.join(names)}")
    count = len(chunk[INPUTS])
    for entry in entries:
        if entry.name not in names:
            continue
        array = chunk[entry.name.removeprefix(f"{side}/")]
        if array.dtype != entry.dtype or array.shape != (count, *entry.shape[1:]) or start + count > entry.shape[0]:
            raise ValueError(f"{entry.name} is {array.dtype} {array.shape} from row {start}, not {entry}")
        content = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        stream.seek(offset + entry.start + start * entry.row_bytes)
        stream.write(content)
        hashes[entry.name].update(content)
    return start + count


def add_targets(moments: Moments, chunk: Chunk) -> None:
    """Add the numeric targets of a chunk, if it has any, weighted like the loss."""
    if TARGETS not in chunk or chunk[TARGETS].dtype.kind != "f":
        return
    count = len(chunk[TARGETS])
    weights = chunk[WEIGHTS].astype(np.float64).reshape(count, -1) if WEIGHTS in chunk else None
    moments.add(chunk[TARGETS].reshape(count, -1).astype(np.float64), weights)


def _mean_variance(moments: Moments) -> float:
    return float(f"{np.mean(moments.variances):.{VARIANCE_DIGITS}g}")


def target_variance(arrays: Chunk) -> float:
    """Return the variance of numeric targets, weighted like the loss, averaged over the numbers of a target."""
    moments = Moments(math.prod(arrays[TARGETS].shape[1:]))
    add_targets(moments, arrays)
    return _mean_variance(moments)


def write_prepared(path: Path, data: PreparedData) -> None:
    """Write datasets as prepared data, as `write_chunks` does."""
    arrays = {
        side: {name: array.numpy() for name, array in dataset.arrays.items()} for side, dataset in data.sides.items()
    }
    counts = {side: len(dataset) for side, dataset in data.sides.items()}
    chunks = {side: Rows(arrays[side], np.arange(counts[side])) for side in arrays}
    write_chunks(path, data.spec, counts, chunks)


class Rows:
    """Some rows of arrays, which iteration yields chunk by chunk, as often as necessary."""

    def __init__(self, arrays: Chunk, rows: np.ndarray):
        self.arrays = arrays
        self.rows = rows
        row_bytes = sum(array.dtype.itemsize * int(np.prod(array.shape[1:])) for array in arrays.values())
        # Rows may become wider when they are transformed, such as by one-hot encoding.
        self.chunk_rows = max(1, min(MAX_CHUNK_ROWS, CHUNK_BYTES // max(1, row_bytes)))

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.rows)

    def parts(self) -> Iterator[np.ndarray]:
        """Yield the indices of the rows of each chunk."""
        for start in range(0, len(self.rows), self.chunk_rows):
            yield self.rows[start : start + self.chunk_rows]

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        """Yield the chunks."""
        for rows in self.parts():
            is_slice = rows[-1] - rows[0] == len(rows) - 1 and (len(rows) == 1 or (np.diff(rows) == 1).all())
            part = slice(rows[0], rows[-1] + 1) if is_slice else rows
            yield {name: np.asarray(array[part]) for name, array in self.arrays.items()}


def read_prepared(path: Path) -> PreparedData:
    """Map prepared data into memory; pages are loaded as examples are read, and all processes share them.

    The mapping is read-only, so that the system counts no memory for it, whatever its size: writing to the arrays ends
    the process.

    Args:
        path: A file that `write_prepared` or `write_chunks` wrote.

    Returns:
        The data, as views of the file.

    Raises:
        UserError: The file is missing, corrupt or incomplete.
    """
    from batchscape.data.dataset import Dataset

    with _open_prepared(path) as (entries, about, offset):
        spec = DataSpec.from_json(about["spec"])
        content = np.memmap(path, np.uint8, "r", offset=0)
        arrays: dict[str, dict[str, np.ndarray]] = {}
        for entry in entries:
            side, _, name = entry.name.partition("/")
            array = content[offset + entry.start : offset + entry.stop].view(entry.dtype).reshape(entry.shape)
            arrays.setdefault(side, {})[name] = np.asarray(array)
        for side in (TRAIN, VALIDATION, *arrays):
            _check_side(spec, arrays[side], side)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            sides = {side: Dataset.from_numpy(spec, arrays[side]) for side in arrays}
        return PreparedData(spec, sides[TRAIN], sides[VALIDATION], sides.get(TEST))


def _check_side(spec: DataSpec, arrays: Chunk, side: str) -> None:
    """Raise KeyError or ValueError if arrays are not what the spec says."""
    required = {INPUTS, *([CATEGORIES] if spec.inputs == "columns" else [])}
    if spec.targets != "next_token":
        required.add(TARGETS)
    for name in sorted(required - set(arrays)):
        raise ValueError(f"there is no array {side}/{name}")
    shapes = {
        INPUTS: {
            "images": (*spec.shape[1:], *spec.shape[:1]),
            "tokens": (*spec.shape[:-1], sum(spec.shape[-1:]) + (spec.targets == "next_token")),
        }.get(spec.inputs, spec.shape),
        CATEGORIES: (len(spec.categories),),
        TARGETS: () if spec.targets == "class" else spec.target_shape,
    }
    for name, array in arrays.items():
        if not len(array) or len(array) != len(arrays[INPUTS]) or array.shape[1:] != shapes.get(name, array.shape[1:]):
            raise ValueError(f"{side}/{name} has shape {array.shape}")
    if spec.targets == "class":
        targets = arrays[TARGETS]
        if targets.dtype != np.int64 or targets.min() < 0 or targets.max() >= len(spec.classes):
            raise ValueError(f"{side}: {targets.dtype} targets from {targets.min()} to {targets.max()}")


def prepared_digest(path: Path) -> str:
    """Return the SHA-256 of the arrays and the spec that is stored in a prepared file.

    Raises:
        UserError: The file is missing, corrupt or incomplete.
    """
    with _open_prepared(path) as (_, about, _):
        return about["sha256"]


@contextmanager
def _open_prepared(path: Path) -> Iterator[tuple[list[_Entry], dict[str, Any], int]]:
    """Yield the arrays of a prepared file, what is known about them, and the offset of the first one."""
    try:
        with path.open("rb") as stream:
            size = path.stat().st_size
            length = int.from_bytes(stream.read(8), "little")
            if size < 8 or length > min(size - 8, MAX_HEADER_BYTES):
                raise ValueError(f"{size} bytes, which is less than its header says")
            header = json.loads(stream.read(length))
        about = json.loads(header.pop("__metadata__")["about"])
        entries = [
            _Entry(name, NUMPY_DTYPES[entry["dtype"]], tuple(entry["shape"]), entry["data_offsets"][0])
            for name, entry in header.items()
        ]
        for entry in entries:
            if entry.start < 0 or entry.stop > size - 8 - length or entry.stop != header[entry.name]["data_offsets"][1]:
                raise ValueError(f"{size} bytes, which is less than its header says")
        yield entries, about, 8 + length
    except FileNotFoundError:
        raise UserError(f"{path}: there is no prepared data; run `batchscape run FILE prepare --cores 1`")
    except (OSError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: is corrupt or incomplete ({reason}); delete it to prepare the data again")
