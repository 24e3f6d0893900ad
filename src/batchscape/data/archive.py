"""Uniform access to the files of a folder or of a zip file."""

import os
import sys
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from lzma import LZMAError
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from batchscape.data.listing import list_files
from batchscape.errors import UserError

READABLE = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}

# No image within Pillow's limit of pixels needs more bytes; a video would fill the memory.
MAX_FILE_SIZE = 4 * (Image.MAX_IMAGE_PIXELS or sys.maxsize)


class UnusableFile(Exception):
    """A file cannot be used as an image. The message is the reason, as `kind: detail`."""


class SourceFile(NamedTuple):
    """A file of a folder or of a zip file."""

    name: str
    """Path below the folder, or inside the zip file, with `/`."""

    read: Callable[[], bytes]
    """Returns the content; raises UnusableFile. Thread-safe."""


@contextmanager
def open_archive(path: Path) -> Iterator[list[SourceFile]]:
    """Yield the files of a folder or of a zip file, in the same order for both; they are readable inside the context.

    Raises UserError, naming the key `data.path`, if the path is neither or the zip file cannot be read.
    """
    if path.is_dir():
        yield sorted((_in_folder(path, name) for name in list_files(path)), key=_path_parts)
        return
    try:
        archive = zipfile.ZipFile(path)
    except FileNotFoundError:
        raise UserError(f"data.path: {path} does not exist; paths are relative to the working folder")
    except NotImplementedError:
        raise _unsupported_compression(path)
    except zipfile.BadZipFile:
        with path.open("rb") as stream:
            is_corrupt_zip = stream.read(2) == b"PK"
        problem = (
            "a corrupt zip file; get it again"
            if is_corrupt_zip
            else "neither a folder nor a zip file; name the folder that contains the class folders"
        )
        raise UserError(f"data.path: {path} is {problem}")
    except OSError as error:
        raise UserError(f"data.path: {path} cannot be read ({error.strerror or error})")
    with archive:
        infos = [info for info in archive.infolist() if not info.is_dir()]
        if any(info.flag_bits & 1 for info in infos):
            raise UserError(f"data.path: {path} is encrypted; unpack it with its password, and name the folder")
        if any(info.compress_type not in READABLE for info in infos):
            raise _unsupported_compression(path)
        lock = threading.Lock()
        yield sorted((_in_zip(archive, info, lock) for info in infos), key=_path_parts)


def _unsupported_compression(path: Path) -> UserError:
    return UserError(f"data.path: {path} uses an unsupported compression method; unpack it, and name the folder")


def _path_parts(file: SourceFile) -> list[str]:
    """Return the sort key of a file: files of one folder stay together whatever characters names contain."""
    return file.name.split("/")


def _in_folder(folder: Path, name: str) -> SourceFile:
    def read() -> bytes:
        file = folder / name
        try:
            if file.is_dir():
                raise UnusableFile("unreadable file: a folder that cannot be listed")
            if not file.is_file():  # opening a named pipe would block forever
                raise UnusableFile("unreadable file: a broken link, or not a regular file")
            _require_size(file.stat().st_size)
            return file.read_bytes()
        except OSError as error:
            raise UnusableFile(f"unreadable file: {(error.strerror or str(error)).lower()}")

    # A name that is not UTF-8 could not be written to the manifest.
    return SourceFile(os.fsencode(name).decode(errors="backslashreplace"), read)


def _in_zip(archive: zipfile.ZipFile, info: zipfile.ZipInfo, lock: threading.Lock) -> SourceFile:
    def read() -> bytes:
        _require_size(info.file_size)
        try:
            with lock:  # the reference count inside ZipFile is not thread-safe
                return archive.read(info)
        except (OSError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error, LZMAError) as error:
            raise UnusableFile(f"unreadable file: {' '.join(str(error).split())}")

    name = info.filename
    if not info.flag_bits & 0x800:  # the UTF-8 flag, which some programs omit; without it names are code page 437
        with suppress(UnicodeError):
            name = name.encode("cp437").decode()
    parts = name.replace("\\", "/").split("/")  # old versions of .NET write backslashes
    # Nothing is unpacked, so `..` is harmless; it is removed so that names stay below the zip file.
    return SourceFile("/".join(part for part in parts if part not in ("", ".", "..")), read)


def _require_size(size: int) -> None:
    if size > MAX_FILE_SIZE:
        raise UnusableFile(f"too large: {size:,} bytes")
