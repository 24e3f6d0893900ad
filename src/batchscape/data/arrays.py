"""Inputs and targets in NumPy files."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Literal, NamedTuple

import numpy as np

from batchscape.config.data.arrays import ArraysConfig
from batchscape.config.data.section import TaskName
from batchscape.data.interpret import check_numeric_targets, from_arrays, infer_kind, stored_shape, validate_labels
from batchscape.data.prepared import CHUNK_BYTES
from batchscape.data.scratch import Scratch
from batchscape.data.source import (
    DEFAULT_OPTIONS,
    LoadOptions,
    ManifestEntry,
    RawDataset,
    encode_labels,
    join_names,
    require_two_classes,
)
from batchscape.data.spec import DataSpec
from batchscape.errors import UserError
from batchscape.io.files import hash_file

# Names of arrays in .npz files, by what they are; the first that there is counts.
NAMES = {
    "inputs": ("inputs", "images"),
    "targets": ("targets", "labels"),
    "weights": ("weights",),
    "split": ("split",),
    "groups": ("groups",),
}

# The first bytes of .npy files and of .npz files, which are zip files.
MAGIC_BYTES = (b"\x93NUMPY", b"PK")


class Header(NamedTuple):
    """Shape and data type of an array, from the header of its file."""

    shape: tuple[int, ...]
    dtype: np.dtype


def load(config: ArraysConfig, options: LoadOptions = DEFAULT_OPTIONS) -> RawDataset:
    """Return the arrays of an `.npz` file or of `.npy` files. Raises UserError if they are unusable.

    Arrays are mapped; those of an `.npz` file are unpacked to the disk first.
    """
    path = Path(config.path)
    if _is_zip(config.path, "data.path"):
        arrays = _read_npz(config, options)
        files = [path]
    else:
        arrays = _read_npy(config, options.task)
        files = [path, *([Path(config.labels)] if config.labels else [])]
    count = len(arrays["inputs"]) if arrays["inputs"].ndim else 0
    entries = [
        ManifestEntry(file.name, hash_file(file), examples=count if index == 0 else 0)
        for index, file in enumerate(files)
    ]
    return from_arrays(
        arrays["inputs"],
        arrays.get("targets"),
        None,
        path.name,
        "data.path",
        task=options.task,
        kind=config.inputs,
        channels=config.channels,
        weights=arrays.get("weights"),
        sides=arrays.get("split"),
        groups=arrays.get("groups"),
        entries=entries,
    )


class ArraysInspection(NamedTuple):
    """What arrays show without their inputs."""

    line: str
    spec: DataSpec
    """What an example is; the size of a vocabulary is not known."""
    num_examples: int
    targets: np.ndarray | None
    """Numeric targets, (num_examples, …)."""
    divides_itself: bool
    """Whether the file has an array of sides or of groups, so that fractions do not tell how many are on a side."""


def inspect_arrays(config: ArraysConfig, task: TaskName = "classification") -> ArraysInspection:
    """Return what arrays show, without reading the inputs.

    Raises UserError for what headers and targets show to be unusable, as
    `load` does.
    """
    targets: np.ndarray | None = None
    divides_itself = False
    if _is_zip(config.path, "data.path"):
        _reject_labels_key(config)
        try:
            names = _names_in_npz(config, task)
            divides_itself = not names.keys().isdisjoint(("split", "groups"))
            with zipfile.ZipFile(config.path) as archive, archive.open(f"{names['inputs']}.npy") as stream:
                header = _read_header(stream)[0]
            if "targets" in names:
                targets = _unpack(config.path, names["targets"])
        except UserError:
            raise
        except Exception as error:
            raise _unreadable("data.path", config.path, error)
    else:
        inputs = _load_npy(config.path, "data.path")
        header = Header(inputs.shape, inputs.dtype)
        targets = _labels_of_npy(config, task)
    kind = infer_kind(header.shape, header.dtype, config.inputs, config.channels, task, "data.path")
    count, shape = header.shape[0], stored_shape(header.shape, kind, config.channels)
    classes: list[str] = []
    target_shape: tuple[int, ...] = ()
    if task == "classification" and targets is not None:
        validate_labels(targets.shape, count, kind, "data.path")
        classes = encode_labels(targets, None, "data.path")[1]
        require_two_classes(classes)
    numbers: np.ndarray | None = None
    if task == "regression" and targets is not None:
        numbers = check_numeric_targets(targets, count, "data.path")
        target_shape = numbers.shape[1:]
    size = " × ".join(f"{length:,}" for length in (shape[:2] if kind == "images" else shape))
    line = (
        f"data: {config.path}: {count:,} "
        + {
            "images": f"images of {size} pixels, channels: {shape[-1]}, {header.dtype}",
            "numbers": f"examples of {size} numbers, {header.dtype}",
            "tokens": f"examples of {size} tokens, {header.dtype}",
        }[kind]
    )
    if classes:
        line += f"; {len(classes):,} classes: {join_names(classes)}"
    if kind == "images":
        shape = (shape[2], *shape[:2])
    targets_kind: Literal["class", "numbers", "next_token"] = "class"
    if task != "classification":
        targets_kind = "numbers" if task == "regression" else "next_token"
    spec = DataSpec(kind, shape, targets_kind, tuple(classes), target_shape)
    return ArraysInspection(line, spec, count, numbers, divides_itself)


def _reject_labels_key(config: ArraysConfig) -> None:
    if config.labels is not None:
        raise UserError(f"data.labels: {config.path} is an .npz file, which contains the labels too; remove the key")


def _read_npz(config: ArraysConfig, options: LoadOptions) -> Mapping[str, np.ndarray]:
    _reject_labels_key(config)
    try:
        names = _names_in_npz(config, options.task)
        # Only these: other arrays may be large, or of Python objects.
        return {kind: _unpack(config.path, name, options.folder) for kind, name in names.items()}
    except UserError:
        raise
    except Exception as error:
        raise _unreadable("data.path", config.path, error)


def _names_in_npz(config: ArraysConfig, task: TaskName) -> dict[str, str]:
    """Return the names of the arrays that an .npz file has, by what they are."""
    with np.load(config.path, allow_pickle=False) as arrays:
        present = list(arrays)
    found = {kind: next((name for name in names if name in present), "") for kind, names in NAMES.items()}
    required = ("inputs",) if task == "language_model" else ("inputs", "targets")
    for kind in required:
        if not found[kind]:
            others = ", ".join(present) or "none"
            raise UserError(
                f"data.path: {config.path} has no array `{NAMES[kind][-1]}`, only {others}; save it with "
                "np.savez(path, images=…, labels=…)"
            )
    for names in NAMES.values():
        if all(name in present for name in names) and len(names) > 1:
            raise UserError(f"data.path: {config.path} has both `{names[0]}` and `{names[1]}`; keep one of them")
    return {
        kind: name for kind, name in found.items() if name and not (kind == "targets" and "targets" not in required)
    }


def _read_header(stream: IO[bytes]) -> tuple[Header, bool]:
    """Return the header of an .npy stream, and whether the array is stored column by column."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, is_fortran, dtype = read(stream)
    return Header(shape, dtype), is_fortran


def _unpack(path: str, name: str, folder: Path | None = None) -> np.ndarray:
    """Return an array of an .npz file as a mapped file without a name in a folder, by default the system's."""
    with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as stream:
        header, is_fortran = _read_header(stream)
        if header.dtype.hasobject:
            raise ValueError("allow_pickle")
        content = Scratch((), np.uint8, folder)
        while part := stream.read(CHUNK_BYTES):  # to the end, where the checksum is verified
            content.append(np.frombuffer(part, np.uint8))
    shape = header.shape[::-1] if is_fortran else header.shape
    size = header.dtype.itemsize * int(np.prod(shape, dtype=np.int64))
    if len(content) != size:
        raise ValueError(f"`{name}` has {len(content):,} bytes, not {size:,}")
    array = content.read().view(header.dtype).reshape(shape) if size else np.empty(shape, header.dtype)
    return array.T if is_fortran else array


def _read_npy(config: ArraysConfig, task: TaskName) -> Mapping[str, np.ndarray]:
    targets = _labels_of_npy(config, task)
    arrays = {"inputs": _load_npy(config.path, "data.path")}
    return arrays if targets is None else arrays | {"targets": targets}


def _labels_of_npy(config: ArraysConfig, task: TaskName) -> np.ndarray | None:
    if config.labels is None:
        if task == "language_model":
            return None
        raise UserError(f"data.labels: is missing; {config.path} contains only the inputs, so name the labels' file")
    if _is_zip(config.labels, "data.labels"):
        raise UserError(f"data.labels: {config.labels} is not an .npy file; name one with the labels")
    return np.asarray(_load_npy(config.labels, "data.labels"))


def _load_npy(path: str, key: str) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:
        raise _unreadable(key, path, error)


def _is_zip(path: str, key: str) -> bool:
    try:
        with Path(path).open("rb") as stream:
            start = stream.read(6)
    except FileNotFoundError:
        raise UserError(f"{key}: {path} does not exist; paths are relative to the working folder")
    except OSError as error:
        raise UserError(f"{key}: {path} cannot be read ({error.strerror or error})")
    if not start.startswith(MAGIC_BYTES):
        raise UserError(
            f"{key}: {path} is neither an .npy nor an .npz file; read it with a library for its format, and save it "
            "with np.savez(path, images=…, labels=…)"
        )
    return start.startswith(b"PK")


def _unreadable(key: str, path: str, error: Exception) -> UserError:
    # NumPy parses headers as Python literals, so damaged ones raise errors of any kind.
    reason = " ".join(str(error).split()) or type(error).__name__
    if "allow_pickle" in reason:
        reason = "it contains Python objects; save text with .astype(str), and numbers as one array"
    return UserError(f"{key}: {path} cannot be read as .npy or .npz ({reason})")
