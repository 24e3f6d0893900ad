"""Arrays on disk."""

import resource
from pathlib import Path

import numpy as np
import pytest

from batchscape.data.scratch import Scratch


def test_rows_are_appended_replaced_and_kept(tmp_path: Path):
    array = Scratch((2,), np.int32, tmp_path)
    array.append(np.arange(6, dtype=np.int32).reshape(3, 2))
    array.append(np.array([[6, 7]], np.int32))
    array.replace(1, np.array([20, 30], np.int32))
    assert array.read().tolist() == [[0, 1], [20, 30], [4, 5], [6, 7]]
    array.keep([0, 2, 3])
    assert array.read().tolist() == [[0, 1], [4, 5], [6, 7]]
    array.append(np.array([[8, 9]], np.int32))
    assert array.read().tolist() == [[0, 1], [4, 5], [6, 7], [8, 9]]
    assert len(array) == 4


def test_array_has_no_file_that_could_remain(tmp_path: Path):
    array = Scratch((), np.uint8, tmp_path / "new")
    array.append(np.arange(10, dtype=np.uint8))
    values = array.read()
    assert list((tmp_path / "new").iterdir()) == []
    del array
    assert values.tolist() == list(range(10))  # the mapping keeps it


def test_array_is_read_only_and_may_be_empty(tmp_path: Path):
    array = Scratch((3,), np.float32, tmp_path)
    assert array.read().shape == (0, 3)
    array.append(np.zeros((1, 3), np.float32))
    with pytest.raises(ValueError, match="read-only"):
        array.read()[0] = 1


@pytest.mark.parametrize("rows", [np.zeros((1, 2), np.float64), np.zeros((1, 3), np.float32)], ids=["type", "shape"])
def test_rows_of_another_type_or_shape_are_an_error(rows: np.ndarray):
    with pytest.raises(ValueError, match="rows are"):
        Scratch((2,), np.float32).append(rows)


def test_row_after_the_end_cannot_be_replaced():
    with pytest.raises(IndexError):
        Scratch((2,), np.float32).replace(0, np.zeros(2, np.float32))


def test_full_disk_names_the_folder(tmp_path: Path):
    """A limit on the size of files is reported by the same call as a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    array = Scratch((1000,), np.uint8, tmp_path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError, match=str(tmp_path)):
            for _ in range(1000):
                array.append(np.zeros((10, 1000), np.uint8))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
