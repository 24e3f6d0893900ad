"""Images and labels in NumPy's files."""

import zipfile
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from batchscape.config.data import ArraysConfig
from batchscape.data.source import RawDataset, encode_labels, from_arrays, has_channels_first, validate_images
from batchscape.errors import UserError

NAMES = ("images", "labels")

# What .npy and .npz files begin with; the latter are zip files.
BEGINNINGS = (b"\x93NUMPY", b"PK")


class Header(NamedTuple):
    """What the beginning of an array's file says of it."""

    shape: tuple[int, ...]
    dtype: np.dtype


def load(config: ArraysConfig, threads: int = 1) -> RawDataset:  # noqa: ARG001
    """Return the images and labels of an `.npz` file, or of two `.npy` files. Raises UserError if they are not."""
    images, labels = _read(config)
    _require_channels(images.shape, config)
    if config.channels == "first":
        images = np.moveaxis(images, 1, -1)
    return from_arrays(images, labels, None, Path(config.path).name, "data.path")


def inspect_arrays(config: ArraysConfig) -> tuple[Header, list[str]]:
    """Return what the header says of the images, channels last, and the classes, without reading the images.

    Raises UserError where `load` would, as far as headers and labels show.
    """
    header, labels = _read(config, headers=True)
    _require_channels(header.shape, config)
    if config.channels == "first":
        header = header._replace(shape=(header.shape[0], *header.shape[2:], header.shape[1]))
    validate_images(header.shape, header.dtype, labels.shape, "data.path")
    return header, encode_labels(labels, None, "data.path")[1]


def _require_channels(shape: tuple[int, ...], config: ArraysConfig) -> None:
    if config.channels == "first":
        if len(shape) != 4:
            raise UserError(f"data.channels: images of shape {shape} have no channels; take the key out")
    elif has_channels_first(shape):
        raise UserError(f"data.channels: images of shape {shape} have channels first; write `channels: first`")


def _read(config: ArraysConfig, headers: bool = False) -> tuple[np.ndarray | Header, np.ndarray]:
    """Return the images, or with `headers` what their header says, and the labels."""
    if _is_zip(config.path, "data.path"):
        if config.labels is not None:
            raise UserError(f"data.labels: {config.path} is an .npz file, which holds the labels too; take the key out")
        try:
            return _members(config.path, headers)
        except UserError:
            raise
        except Exception as error:
            raise _unreadable("data.path", config.path, error)
    if config.labels is None:
        raise UserError(f"data.labels: is missing; {config.path} holds the images alone, so name the labels' file")
    if _is_zip(config.labels, "data.labels"):
        raise UserError(f"data.labels: {config.labels} is no .npy file; give one with the labels")
    images = _array(config.path, "data.path", mapped=headers)
    labels = _array(config.labels, "data.labels")
    return (Header(images.shape, images.dtype) if headers else images), labels


def _members(path: str, headers: bool) -> tuple[np.ndarray | Header, np.ndarray]:
    with np.load(path, allow_pickle=False) as content:
        missing = [name for name in NAMES if name not in content]
        if missing:
            raise UserError(
                f"data.path: {path} has no array `{missing[0]}`, but {', '.join(content) or 'none'}; "
                "save it with np.savez(path, images=…, labels=…)"
            )
        labels = np.asarray(content["labels"])  # others may be large, or of objects
        if not headers:
            return np.asarray(content["images"]), labels
    with zipfile.ZipFile(path) as archive, archive.open("images.npy") as stream:
        return _header(stream), labels


def _header(stream: IO[bytes]) -> Header:
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    return Header(shape, dtype)


def _array(path: str, key: str, mapped: bool = False) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except Exception as error:
        raise _unreadable(key, path, error)


def _is_zip(path: str, key: str) -> bool:
    try:
        with Path(path).open("rb") as stream:
            beginning = stream.read(6)
    except FileNotFoundError:
        raise UserError(f"{key}: there is no file {path}; paths count from the folder in which the workflow runs")
    except OSError as error:
        raise UserError(f"{key}: {path} cannot be read ({error.strerror or error})")
    if not beginning.startswith(BEGINNINGS):
        raise UserError(
            f"{key}: {path} is neither an .npy nor an .npz file; read it with the library that knows its format, and "
            "save it with np.savez(path, images=…, labels=…)"
        )
    return beginning.startswith(b"PK")


def _unreadable(key: str, path: str, error: Exception) -> UserError:
    # The header of an array is Python's text, on which NumPy may fail in any way.
    why = " ".join(str(error).split())
    if "allow_pickle" in why:
        why = "it holds Python objects; save text with .astype(str), and images as one array of numbers"
    return UserError(f"{key}: {path} cannot be read as NumPy's .npy or .npz ({why})")
