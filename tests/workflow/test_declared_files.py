"""Jobs need no file but those that their rules declare, where no file system is shared."""

import csv
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest

from batchscape.io.frames import read_frame
from tests.helpers.checkout import Checkout, drop_times

pytestmark = pytest.mark.slow

CONFIG = "config/smoke.yaml"
WITHOUT_SHARED_FILES = ("--shared-fs-usage", "none", "--configfile", CONFIG)
# The rules whose jobs read folders of runs; the files of all other jobs are those of their lists of inputs.
READERS = (
    *("runs", "history", "distance", "epoch_distance", "update_norms", "confirmation", "branch_state", "landscape"),
    *("sharpness", "gradient_alignment", "trajectory", "curvature", "spectral_density", "interpolation"),
)


def declared_files(checkout: Checkout) -> dict[str, tuple[Path, list[Path]]]:
    """Return the first output and the inputs of one job of each rule."""
    done = checkout.snakemake("--detailed-summary", *WITHOUT_SHARED_FILES)
    assert done.returncode == 0, done.stdout[-3000:]
    lines = done.stdout[done.stdout.index("output_file\t") :].splitlines()
    jobs = {}
    for row in csv.DictReader(lines, delimiter="\t"):
        jobs.setdefault(row["rule"], (Path(row["output_file"]), list(map(Path, row["input-file(s)"].split(",")))))
    return jobs


def test_jobs_read_only_the_files_of_runs_that_their_rules_declare(finished: Checkout, tmp_path: Path):
    jobs = declared_files(finished)
    folder = Checkout.at(tmp_path / "checkout")
    for file in {file for rule in READERS for file in jobs[rule][1]}:
        source, copy = finished.path / file, folder.path / file
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, copy, copy_function=os.link)
        else:
            os.link(source, copy)
    outputs = [jobs[rule][0] for rule in READERS]
    done = folder.snakemake(
        *map(str, outputs), "--cores", "2", *WITHOUT_SHARED_FILES, "--allowed-rules", *READERS
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
    tables = [output for output in outputs if output.suffix == ".csv"]
    assert len(tables) == len(READERS) - 1
    for table in tables:
        expected, actual = (drop_times(read_frame(root / table)) for root in (finished.path, folder.path))
        pd.testing.assert_frame_equal(actual, expected, obj=str(table))
