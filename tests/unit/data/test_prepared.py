"""The prepared file."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from batchscape.config.data import DigitsConfig
from batchscape.data.prepare import prepare
from batchscape.data.prepared import IMAGES, LABELS, PreparedData, read_prepared, write_prepared


def test_prepared_data_round_trips(prepared: PreparedData, tmp_path: Path):
    path = tmp_path / "data" / "images.safetensors"
    write_prepared(path, prepared)
    back = read_prepared(path)
    assert {field.name for field in fields(back)} == {*IMAGES, *LABELS, "classes"}
    for part in (*IMAGES, *LABELS):
        assert getattr(back, part).dtype == getattr(prepared, part).dtype
        assert np.array_equal(getattr(back, part), getattr(prepared, part))
    assert list(path.parent.iterdir()) == [path]


def test_equal_data_gives_equal_bytes(prepared: PreparedData, tmp_path: Path):
    write_prepared(tmp_path / "a", prepared)
    write_prepared(tmp_path / "b", prepare(DigitsConfig())[0])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_missing_file_is_reported_with_the_command_that_creates_it(tmp_path: Path, refusal: Callable):
    path = tmp_path / "images.safetensors"
    message = refusal(read_prepared, path)
    assert message.startswith(f"{path}: ")
    assert f"snakemake --cores 1 {path}" in message


@pytest.mark.parametrize("size", [0, 7, 100, 5000, -1])
def test_truncated_file_is_rejected(small_data_file: Path, tmp_path: Path, size: int, refusal: Callable):
    path = tmp_path / "images.safetensors"
    path.write_bytes(small_data_file.read_bytes()[:size])
    assert refusal(read_prepared, path).startswith(f"{path}: is corrupt or incomplete (")


@pytest.mark.parametrize("missing", [*IMAGES, *LABELS])
def test_file_without_one_of_its_arrays_is_rejected(missing: str, tmp_path: Path, refusal: Callable):
    path = tmp_path / "images.safetensors"
    arrays = {part: np.zeros((3, 1, 1, 1), np.uint8) for part in IMAGES} | {part: np.zeros(3) for part in LABELS}
    del arrays[missing]
    save_file(arrays, path)
    message = refusal(read_prepared, path)
    assert message.startswith(f"{path}: is corrupt or incomplete (")
    assert missing in message
