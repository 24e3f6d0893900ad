"""Atomic file writes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from batchscape.io.files import MACHINE, write_atomically, write_json, write_text


def test_failed_write_leaves_the_old_file(tmp_path: Path):
    path = tmp_path / "file"
    write_text(path, "old")

    def write(partial: Path) -> None:
        partial.write_text("ne")
        raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="the disk is full"):
        write_atomically(path, write)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_old_file_exists_while_the_new_one_is_written(tmp_path: Path):
    path = tmp_path / "file"
    write_text(path, "old")

    def write(partial: Path) -> None:
        partial.write_text("new")
        assert path.read_text() == "old"
        assert partial.parent == path.parent  # a rename is atomic within one file system only

    write_atomically(path, write)
    assert path.read_text() == "new"


def test_temporary_files_of_killed_processes_are_deleted(tmp_path: Path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    retained = [
        f".file.txt.{MACHINE}-1.partial",  # process 1 always runs
        f".file.txt.{MACHINE}-x.partial",
        f".file.txt.other-{dead.pid}.partial",
        f".other.txt.{MACHINE}-{dead.pid}.partial",
        f"file.txt.{MACHINE}-{dead.pid}.partial",
    ]
    for name in (f".file.txt.{MACHINE}-{dead.pid}.partial", *retained):
        (tmp_path / name).touch()
    write_text(tmp_path / "file.txt", "text")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*retained, "file.txt"])


def test_missing_folders_are_created(tmp_path: Path):
    write_text(tmp_path / "a" / "b" / "file", "text")
    assert (tmp_path / "a" / "b" / "file").read_text() == "text"


def test_json_round_trips_floats(tmp_path: Path):
    value = {"b": [0.1 + 0.2, 5e-324, 1e308], "a": None, "c": "×"}
    write_json(tmp_path / "a.json", value)
    assert json.loads((tmp_path / "a.json").read_text()) == value


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_number_raises_before_the_old_file_is_replaced(tmp_path: Path, value: float):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"a": value})
    assert json.loads(path.read_text()) == {"a": 1}
