"""Arrays on disk that a source writes while it reads its files, so that they need no memory."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np


class Scratch:
    """An array of unknown length in an unnamed file, which disappears with the process, however it ends.

    Rows are written by ordinary writes, not by a mapping: a full disk is then an error instead of a signal.

    Args:
        shape: Shape of a row.
        dtype: Data type.
        folder: Where the file is; its file system must have room for the array. None: the system's temporary folder.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.typing.DTypeLike, folder: Path | None = None):
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder or Path(tempfile.gettempdir())
        self.shape = tuple(shape)
        self.dtype = np.dtype(dtype)
        self.row_bytes = self.dtype.itemsize * int(np.prod(self.shape, dtype=np.int64))
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - open as long as the array
        self._length = 0

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._length

    def append(self, rows: np.ndarray) -> None:
        """Add rows, (n, *shape), of the array's data type."""
        self._write(self._length, rows)
        self._length += len(rows)

    def replace(self, index: int, row: np.ndarray) -> None:
        """Replace a row."""
        if not 0 <= index < self._length:
            raise IndexError(index)
        self._write(index, row[np.newaxis])

    def keep(self, rows: Sequence[int] | np.ndarray) -> None:
        """Drop all rows but those of the given indices, which increase."""
        array = self.read()
        for target, row in enumerate(rows):
            if target != row:
                self._write(target, array[row][np.newaxis])
        self._length = len(rows)

    def read(self) -> np.ndarray:
        """Return the array, (n, *shape), mapped, as a read-only view of the file."""
        try:
            self._file.flush()
        except OSError as error:
            raise self._named(error)
        if not self._length or not self.row_bytes:
            return np.empty((self._length, *self.shape), self.dtype)
        mapped = np.memmap(self._file, np.uint8, "r", shape=(self._length * self.row_bytes,))
        return np.asarray(mapped).view(self.dtype).reshape(self._length, *self.shape)

    def _write(self, index: int, rows: np.ndarray) -> None:
        if rows.dtype != self.dtype or rows.shape[1:] != self.shape:
            raise ValueError(f"rows are {rows.dtype} {rows.shape[1:]}, not {self.dtype} {self.shape}")
        try:
            self._file.seek(index * self.row_bytes)
            self._file.write(np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data)
        except OSError as error:
            raise self._named(error)

    def _named(self, error: OSError) -> OSError:
        error.filename = error.filename or str(self.folder)
        return error
