"""Images and labels in NumPy files."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from batchscape.config.data import ArraysConfig
from batchscape.data.source import (
    DEFAULT_OPTIONS,
    LoadOptions,
    RawDataset,
    encode_labels,
    from_arrays,
    has_channels_first,
    validate_images,
)
from batchscape.errors import UserError

NAMES = ("images", "labels")

# The first bytes of .npy files and of .npz files, which are zip files.
MAGIC_BYTES = (b"\x93NUMPY", b"PK")


class Header(NamedTuple):
    """Shape and data type of an array, from the header of its file."""

    shape: tuple[int, ...]
    dtype: np.dtype


Images = TypeVar("Images", np.ndarray, Header)


def load(config: ArraysConfig, options: LoadOptions = DEFAULT_OPTIONS) -> RawDataset:  # noqa: ARG001
    """Return the images and labels of an `.npz` file or of two `.npy` files. Raises UserError if they are unusable."""
    images, labels = _read(config, _images_of_npz, lambda path: _load_npy(path, "data.path"))
    _check_channels(images.shape, config)
    if config.channels == "first":
        images = np.moveaxis(images, 1, -1)
    return from_arrays(images, labels, None, Path(config.path).name, "data.path")


def inspect_arrays(config: ArraysConfig) -> tuple[Header, list[str]]:
    """Return the header of the images, as channels-last, and the names of the classes, without reading the images.

    Raises UserError for what headers and labels show to be unusable, as `load` does.
    """
    header, labels = _read(config, _header_of_npz, _header_of_npy)
    _check_channels(header.shape, config)
    if config.channels == "first":
        header = header._replace(shape=(header.shape[0], *header.shape[2:], header.shape[1]))
    validate_images(header.shape, header.dtype, labels.shape, "data.path")
    return header, encode_labels(labels, None, "data.path")[1]


def _check_channels(shape: tuple[int, ...], config: ArraysConfig) -> None:
    if config.channels == "first":
        if len(shape) != 4:
            raise UserError(f"data.channels: images of shape {shape} have no channels; remove the key")
    elif has_channels_first(shape):
        raise UserError(f"data.channels: images of shape {shape} are channels-first; write `channels: first`")


def _read(
    config: ArraysConfig, read_npz: Callable[[str], Images], read_npy: Callable[[str], Images]
) -> tuple[Images, np.ndarray]:
    """Return what the reader for the format of the file returns for the images, and the labels."""
    if _is_zip(config.path, "data.path"):
        if config.labels is not None:
            raise UserError(
                f"data.labels: {config.path} is an .npz file, which contains the labels too; remove the key"
            )
        try:
            labels = _labels_of_npz(config.path)  # only these: other arrays may be large, or of Python objects
            return read_npz(config.path), labels
        except UserError:
            raise
        except Exception as error:
            raise _unreadable("data.path", config.path, error)
    if config.labels is None:
        raise UserError(f"data.labels: is missing; {config.path} contains only the images, so name the labels' file")
    if _is_zip(config.labels, "data.labels"):
        raise UserError(f"data.labels: {config.labels} is not an .npy file; name one with the labels")
    images = read_npy(config.path)
    return images, _load_npy(config.labels, "data.labels")


def _labels_of_npz(path: str) -> np.ndarray:
    with np.load(path, allow_pickle=False) as arrays:
        missing = [name for name in NAMES if name not in arrays]
        if missing:
            raise UserError(
                f"data.path: {path} has no array `{missing[0]}`, only {', '.join(arrays) or 'none'}; "
                "save it with np.savez(path, images=…, labels=…)"
            )
        return np.asarray(arrays["labels"])


def _images_of_npz(path: str) -> np.ndarray:
    with np.load(path, allow_pickle=False) as arrays:
        return np.asarray(arrays["images"])


def _header_of_npz(path: str) -> Header:
    with zipfile.ZipFile(path) as archive, archive.open("images.npy") as stream:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(stream)
        return Header(shape, dtype)


def _header_of_npy(path: str) -> Header:
    images = _load_npy(path, "data.path", mmap=True)
    return Header(images.shape, images.dtype)


def _load_npy(path: str, key: str, mmap: bool = False) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r" if mmap else None, allow_pickle=False)
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
    reason = " ".join(str(error).split())
    if "allow_pickle" in reason:
        reason = "it contains Python objects; save text with .astype(str), and images as one array of numbers"
    return UserError(f"{key}: {path} cannot be read as .npy or .npz ({reason})")
