"""The files of a folder or of a zip file, read alike."""

import os
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


class UnusableFile(Exception):
    """Why a file cannot be used, as `kind: detail`."""


class SourceFile(NamedTuple):
    """A file of a source."""

    name: str
    """Path below the folder, or in the zip file, with `/`."""

    read: Callable[[], bytes]
    """Returns what is in it; raises Unusable. May be called in any thread."""


@contextmanager
def open_archive(path: Path) -> Iterator[list[SourceFile]]:
    """Give the files of a folder or of a zip file, the same ones in the same order; they can be read while it is open.

    Raises UserError, which names `data.path`, if it is neither, or a zip file that cannot be read.
    """
    if path.is_dir():
        yield sorted((_in_folder(path, name) for name in list_files(path)), key=_place)
        return
    try:
        archive = zipfile.ZipFile(path)
    except FileNotFoundError:
        raise UserError(f"data.path: there is no {path}; paths count from the folder in which the workflow runs")
    except NotImplementedError:
        raise _unknown_packing(path)
    except zipfile.BadZipFile:
        with path.open("rb") as stream:
            damaged = stream.read(2) == b"PK"
        what = (
            "a damaged zip file; get it again"
            if damaged
            else "neither a folder nor a zip file; name the folder around those of the classes"
        )
        raise UserError(f"data.path: {path} is {what}")
    except OSError as error:
        raise UserError(f"data.path: {path} cannot be read ({error.strerror or error})")
    with archive:
        infos = [info for info in archive.infolist() if not info.is_dir()]
        if any(info.flag_bits & 1 for info in infos):
            raise UserError(f"data.path: {path} is encrypted; unpack it with its password, and name the folder")
        if any(info.compress_type not in READABLE for info in infos):
            raise _unknown_packing(path)
        lock = threading.Lock()
        yield sorted((_in_zip(archive, info, lock) for info in infos), key=_place)


def _unknown_packing(path: Path) -> UserError:
    return UserError(f"data.path: {path} is packed in a way that cannot be read; unpack it, and name the folder")


def _place(file: SourceFile) -> list[str]:
    """What files are sorted by: those of a folder stand together, whatever characters names have."""
    return file.name.split("/")


def _in_folder(folder: Path, name: str) -> SourceFile:
    def read() -> bytes:
        file = folder / name
        try:
            if file.is_dir():
                raise UnusableFile("unreadable file: a folder that cannot be listed")
            if not file.is_file():  # to open a pipe would wait for ever
                raise UnusableFile("unreadable file: a broken link, or no regular file")
            _require_size(file.stat().st_size)
            return file.read_bytes()
        except OSError as error:
            raise UnusableFile(f"unreadable file: {(error.strerror or str(error)).lower()}")

    # Names that are no UTF-8 could not be written anywhere.
    return SourceFile(os.fsencode(name).decode(errors="backslashreplace"), read)


def _in_zip(archive: zipfile.ZipFile, info: zipfile.ZipInfo, lock: threading.Lock) -> SourceFile:
    def read() -> bytes:
        _require_size(info.file_size)
        try:
            with lock:  # a ZipFile's count of its readers is not safe among threads
                return archive.read(info)
        except (OSError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error, LZMAError) as error:
            raise UnusableFile(f"unreadable file: {' '.join(str(error).split())}")

    name = info.filename
    if not info.flag_bits & 0x800:  # the flag of UTF-8, which some programs forget; else names are of code page 437
        with suppress(UnicodeError):
            name = name.encode("cp437").decode()
    parts = name.replace("\\", "/").split("/")  # old versions of .NET write backslashes
    return SourceFile("/".join(part for part in parts if part not in ("", ".", "..")), read)  # nothing is unpacked


def _require_size(size: int) -> None:
    # No image with as many pixels as Pillow allows needs more; a film would fill the memory.
    if size > 4 * Image.MAX_IMAGE_PIXELS:
        raise UnusableFile(f"too large: {size:,} bytes")
