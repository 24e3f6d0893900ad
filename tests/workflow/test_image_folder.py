"""A study of a folder of images with all the irregularities of real folders, from the files to the tables."""

import pandas as pd
import pytest

from batchscape.study.study import Study
from tests.helpers.stress import CONFIG, StressStudy

pytestmark = pytest.mark.slow


def test_folder_of_images_becomes_tables_and_every_dropped_file_is_reported(stress: StressStudy):
    path, study = stress.checkout.path, Study.from_file(stress.checkout.path / CONFIG)
    manifest = pd.read_csv(path / study.paths.manifest, keep_default_na=False)
    used = manifest[manifest["reason"] == ""]
    reasons = manifest[manifest["reason"] != ""].set_index("file")["reason"].str.partition(":")[0]
    assert reasons.to_dict() == stress.dropped
    line = next(line for line in stress.output.splitlines() if "files are used" in line)
    assert line.startswith(f"data: {len(used)} of {len(manifest)} files are used: ")
    assert set(stress.dropped.values()) == {kind for kind in stress.dropped.values() if kind in line}
    for line_start in (
        "2 classes: cats (402), dogs (402)",
        "split: 20 % of the images, drawn at random, ",
        "levels: pixel values range from ",
    ):
        assert any(line.startswith(f"data: {line_start}") for line in stress.output.splitlines())
    sides = used.groupby("split")["sha256"].agg(set)
    assert not sides["train"] & sides["validation"]

    for table in stress.targets:
        assert len(pd.read_csv(path / table)) > 0
    runs = pd.read_csv(path / study.paths.csv("tables/runs"))
    assert set(runs["run"]) == set(study.runs)
    assert set(runs["status"]) <= {"converged", "budget_spent"}


def test_only_files_that_can_be_images_make_a_study_stale(stress: StressStudy):
    images, study = stress.checkout.path / "data" / "pets", Study.from_file(stress.checkout.path / CONFIG)

    def stale() -> set[str]:
        return stress.checkout.stale_jobs(CONFIG, target=study.paths.csv("tables/runs"))

    assert stale() == set()
    hidden, duplicate = images / "cats" / ".DS_Store", images / "cats" / "again.jpg"
    hidden.write_bytes(b"left by a file manager")
    assert stale() == set()
    duplicate.write_bytes((images / "cats" / "0001.jpg").read_bytes())
    assert {"prepare", "network", *(f"train {run}" for run in study.runs)} <= stale()
    hidden.unlink()
    duplicate.unlink()
    assert stale() == set()
