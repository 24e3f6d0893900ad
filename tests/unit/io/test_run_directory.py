"""The files of a run: their names, and errors for corrupt ones."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from batchscape.errors import UserError
from batchscape.io.run_directory import RunDirectory


@pytest.mark.parametrize(("checkpoint", "name"), [("best", "best"), (10, "epoch00010")])
def test_checkpoints_have_names(checkpoint: str | int, name: str):
    assert RunDirectory.checkpoint_name(checkpoint) == name


def test_pickled_update_norms_raise_and_are_not_unpickled(tmp_path: Path):
    directory = RunDirectory(tmp_path)
    np.save(directory.update_norms_file, np.array([{"an": "object"}]), allow_pickle=True)
    with pytest.raises(UserError, match="allow_pickle=False"):
        directory.update_norms()


@pytest.mark.parametrize("norms", [np.zeros((2, 2)), np.zeros(2, np.float32)])
def test_update_norms_of_another_kind_raise(norms: np.ndarray, tmp_path: Path, refusal: Callable):
    directory = RunDirectory(tmp_path)
    np.save(directory.update_norms_file, norms)
    assert "is not a vector of float64" in refusal(directory.update_norms)
