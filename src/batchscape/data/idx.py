"""The IDX files of MNIST (LeCun et al. 1998), Fashion-MNIST, EMNIST and KMNIST."""

import gzip
import math
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from batchscape.config.data.images import IdxConfig
from batchscape.data.prepared import INPUTS, TARGETS
from batchscape.data.scratch import Scratch
from batchscape.data.source import DEFAULT_OPTIONS, LoadOptions, ManifestEntry, RawDataset, join_names
from batchscape.data.spec import SIDES, TEST, TRAIN, DataSpec
from batchscape.errors import UserError
from batchscape.io.files import hash_file

CHUNK_BYTES = 2**22

# `train-images-idx3-ubyte.gz`, `t10k-labels.idx1-ubyte`, `emnist-letters-test-images-idx3-ubyte`, …
NAME = re.compile(
    r"(?P<set>.*?)(?P<side>train|t10k|test)[-_.]?(?P<kind>images|labels)[-_.]idx[13][-_.]ubyte(\.gz)?", re.IGNORECASE
)

# Code of the data type, the third byte of a file.
UBYTE = 0x08
TYPE_NAMES = {0x09: "int8", 0x0B: "int16", 0x0C: "int32", 0x0D: "float32", 0x0E: "float64"}


class Part(NamedTuple):
    """The files of images and of their labels."""

    images: Path
    labels: Path
    side: str


class Inspected(NamedTuple):
    """What headers and labels show."""

    parts: list[Part]
    counts: list[int]
    """Number of images of each part."""
    shape: tuple[int, int]
    """Height and width, after transposition."""
    classes: tuple[str, ...]


def load(config: IdxConfig, options: LoadOptions = DEFAULT_OPTIONS) -> RawDataset:
    """Return the images of the files, those for testing last, and their labels.

    Raises UserError if a file is missing, incomplete or of another kind.
    """
    parts = find_parts(config)
    names = _class_names(parts[0].images)
    transposed = is_transposed(config, parts)
    images: Scratch | None = None
    labels, sides, entries = [], [], []
    for part in parts:
        values = read_labels(part.labels)
        with _open(part.images) as stream:
            count, height, width = _read_header(stream, part.images, 3)
            _require_count(part, count, len(values))
            shape = (width, height, 1) if transposed else (height, width, 1)
            if images is None:
                images = Scratch(shape, np.uint8, options.folder)
            if images.shape != shape:
                raise UserError(
                    f"data.path: {part.images} has images of {shape[0]} × {shape[1]} pixels, but {parts[0].images} has "
                    f"{images.shape[0]} × {images.shape[1]}; they must have the same size"
                )
            for content in _read_rows(stream, part.images, count, height * width):
                rows = np.frombuffer(content, np.uint8).reshape(-1, height, width)
                images.append(rows.transpose(0, 2, 1)[..., None] if transposed else rows[..., None])
        labels.append(values)
        sides.append(np.full(count, SIDES.index(part.side) if part.side else -1, np.int8))
        for file, examples in ((part.images, count), (part.labels, 0)):
            entries.append(ManifestEntry(file.name, hash_file(file), "", "", part.side, examples))
    assert images is not None
    values = np.unique(np.concatenate(labels))
    targets = np.searchsorted(values, np.concatenate(labels))
    all_sides = np.concatenate(sides)
    notes = [f"files: {', '.join(str(part.images) for part in parts)}"]
    if transposed:
        reason = "data.transpose" if config.transpose else "as the name says EMNIST; data.transpose: false keeps them"
        notes.append(f"images: height and width are swapped ({reason})")
    spec = DataSpec("images", (1, *images.shape[:2]), "class", tuple(names.get(value, str(value)) for value in values))
    return RawDataset(
        spec,
        {INPUTS: images.read(), TARGETS: targets.astype(np.int64)},
        entries,
        tuple(notes),
        all_sides if (all_sides >= 0).any() else None,
        locate=None,
        key="data.path",
        split_by=f"the files of {config.path}",
    )


def inspect_idx(config: IdxConfig) -> Inspected:
    """Return what headers and labels show, without reading images. Raises UserError as `load` does for these."""
    parts = find_parts(config)
    names = _class_names(parts[0].images)
    counts, shapes, labels = [], [], []
    for part in parts:
        with _open(part.images) as stream:
            count, height, width = _read_header(stream, part.images, 3)
        labels.append(read_labels(part.labels))
        _require_count(part, count, len(labels[-1]))
        counts.append(count)
        shapes.append((width, height) if is_transposed(config, parts) else (height, width))
    classes = tuple(names.get(value, str(value)) for value in np.unique(np.concatenate(labels)))
    return Inspected(parts, counts, shapes[0], classes)


def is_transposed(config: IdxConfig, parts: list[Part]) -> bool:
    """Return whether height and width are swapped in the files."""
    return "emnist" in parts[0].images.name.lower() if config.transpose is None else config.transpose


def find_parts(config: IdxConfig) -> list[Part]:
    """Return the files to read. Raises UserError if they are missing or ambiguous."""
    path = Path(config.path)
    if not path.exists():
        raise UserError(f"data.path: {path} does not exist; paths are relative to the working folder")
    if not path.is_dir():
        return [Part(path, _find_labels(path, config), "")]
    if config.labels is not None:
        raise UserError(f"data.labels: {path} is a folder, which has the labels too; remove the key")
    found: dict[str, dict[tuple[str, str], Path]] = {}
    for file in sorted(path.iterdir()):
        match = NAME.fullmatch(file.name)
        if match and file.is_file():
            side = TRAIN if match["side"].lower() == "train" else TEST
            # An unpacked file comes before its `.gz`.
            found.setdefault(match["set"].lower(), {}).setdefault((side, match["kind"].lower()), file)
    if not found:
        raise UserError(
            f"data.path: {path} has no file with a name such as train-images-idx3-ubyte.gz; name the folder of these "
            "files, or a file of images"
        )
    if len(found) > 1:
        raise UserError(
            f"data.path: {path} has several data sets ({join_names(name.strip('-_.') or 'MNIST' for name in found)}); "
            "name the file of training images of one, or move the others"
        )
    files = next(iter(found.values()))
    for side, kind in ((TRAIN, "images"), (TRAIN, "labels"), (TEST, "images"), (TEST, "labels")):
        needed = side == TRAIN or any(other == TEST for other, _ in files)
        if needed and (side, kind) not in files:
            name = next(iter(files.values())).name
            raise UserError(f"data.path: {path} has no {side} {kind} beside {name}; add the file")
    return [
        Part(files[side, "images"], files[side, "labels"], side) for side in (TRAIN, TEST) if (side, "images") in files
    ]


def _find_labels(images: Path, config: IdxConfig) -> Path:
    if config.labels is not None:
        if not Path(config.labels).is_file():
            raise UserError(f"data.labels: {config.labels} does not exist; paths are relative to the working folder")
        return Path(config.labels)
    for candidate in map(Path, config.label_files):
        if candidate != images and candidate.is_file():
            return candidate
    raise UserError(f"data.labels: there is no file of labels beside {images}; name it")


def _class_names(images: Path) -> dict[int, str]:
    """Return the characters of EMNIST's labels, from the mapping file beside its images if there is one."""
    match = NAME.fullmatch(images.name)
    mapping = images.with_name(f"{match['set']}mapping.txt") if match else None
    if mapping is None or not mapping.is_file():
        return {}
    names = {}
    for number, line in enumerate(mapping.read_text(errors="replace").splitlines(), 1):
        try:
            label, *codes = map(int, line.split())
            names[label] = "".join(map(chr, codes))
        except (ValueError, OverflowError):
            raise UserError(f"data.path: {mapping}, line {number}: must be a label and its character codes; fix it")
    return names if len(set(names.values())) == len(names) else {}


@contextmanager
def _open(path: Path) -> Iterator[IO[bytes]]:
    """Open a file, compressed or not; errors of reading become one line."""
    try:
        with path.open("rb") as stream:
            is_gzip = stream.read(2) == b"\x1f\x8b"
        opened: Any = gzip.open if is_gzip else open
        with opened(path, "rb") as stream:
            yield stream
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise UserError(f"data.path: {path} is corrupt or incomplete ({error}); get it again")
    except OSError as error:
        raise UserError(f"data.path: {path} cannot be read ({error.strerror or error})")


def _read_header(stream: IO[bytes], path: Path, num_dimensions: int) -> tuple[int, ...]:
    """Return the shape that the header of an IDX file gives."""
    magic = stream.read(4)
    kind = "images" if num_dimensions == 3 else "labels"
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in {UBYTE, *TYPE_NAMES} or not magic[3]:
        start = f"begins with {magic.hex()}" if magic else "is empty"
        raise UserError(f"data.path: {path} is not an IDX file (it {start}); get it again")
    if magic[2] != UBYTE:
        raise UserError(f"data.path: {path} has values of {TYPE_NAMES[magic[2]]}; only unsigned bytes can be used")
    if magic[3] != num_dimensions:
        raise UserError(
            f"data.path: {path} has {magic[3]} dimensions, and {kind} have {num_dimensions}; name the file of {kind}"
        )
    header = stream.read(4 * num_dimensions)
    if len(header) < 4 * num_dimensions:
        raise UserError(f"data.path: {path} ends within its header; get it again")
    shape = tuple(np.frombuffer(header, ">u4").tolist())
    if not math.prod(shape):
        raise UserError(f"data.path: {path} has no {kind}: its header gives the shape {shape}")
    return shape


def _read_rows(stream: IO[bytes], path: Path, count: int, row_bytes: int) -> Iterator[bytes]:
    """Yield the rows of a file, some at a time. Raises UserError if there are fewer or more."""
    per_chunk = max(1, CHUNK_BYTES // row_bytes)
    done = 0
    while done < count:
        content = stream.read(min(per_chunk, count - done) * row_bytes)
        done += len(content) // row_bytes
        if len(content) % row_bytes or not content:
            raise UserError(
                f"data.path: {path} ends after {done:,} of the {count:,} items that its header gives; get it again"
            )
        yield content
    if stream.read(1):
        raise UserError(f"data.path: {path} is longer than its header says ({count:,} items); get it again")


def read_labels(path: Path) -> np.ndarray:
    """Return the labels of a file, (n,) uint8. Raises UserError if it is not one of labels."""
    with _open(path) as stream:
        (count,) = _read_header(stream, path, 1)
        return np.frombuffer(b"".join(_read_rows(stream, path, count, 1)), np.uint8)


def _require_count(part: Part, num_images: int, num_labels: int) -> None:
    if num_images != num_labels:
        raise UserError(
            f"data.path: {part.images.name} has {num_images:,} images, but {part.labels.name} has {num_labels:,} "
            "labels; name files of the same set"
        )
