"""Jobs need no file but those that their rules declare, where no file system is shared."""

import os
import shutil
from pathlib import Path

import pandas as pd
import pytest

from batchscape.io.frames import read_frame
from batchscape.study.registry import ANALYSES
from batchscape.study.study import Study
from tests.helpers.checkout import PROJECT, Checkout, drop_times

pytestmark = pytest.mark.slow

CONFIG = "config/smoke.yaml"
STUDY = Study.from_file(PROJECT / CONFIG)
WITHOUT_SHARED_FILES = ("--shared-fs-usage", "none")
# The analyses whose jobs read folders of runs; the others read the file of a search, or a state, or train.
READERS = [name for name in STUDY.plan.analyses if name not in ("tuning", "branching", "device_timing")]


def first_output(analysis: str) -> str:
    return STUDY.paths.partial_outputs(analysis)[0] if ANALYSES[analysis].is_split else STUDY.paths.rows(analysis)


def test_every_analysis_declares_more_files_without_a_shared_file_system(finished: Checkout):
    jobs = finished.stale_jobs(CONFIG, *WITHOUT_SHARED_FILES)  # those with other inputs than before
    assert not {job for job in jobs if job.startswith(("train", "tune", "prepare"))}
    for analysis in READERS:
        assert any(job.startswith("analyze") and analysis in job.split() for job in jobs), analysis


def test_analyses_read_only_the_files_of_runs_that_are_declared(finished: Checkout, tmp_path: Path):
    folder = Checkout.at(tmp_path / "checkout")
    names = ("run.json", "history.csv", "update_norms.npy", *STUDY.paths.weights_folders)
    summaries = map(Path, (*STUDY.paths.run_summaries, *STUDY.paths.confirmation_summaries))
    declared = [summary.with_name(name) for summary in summaries for name in names]
    for file in (*declared, Path(STUDY.paths.prepared_data), Path(STUDY.paths.finalists)):
        (folder.path / file).parent.mkdir(parents=True, exist_ok=True)
        if (finished.path / file).is_dir():
            shutil.copytree(finished.path / file, folder.path / file, copy_function=os.link)
        else:
            os.link(finished.path / file, folder.path / file)
    outputs = list(map(first_output, READERS))
    options = ("--cores", "2", "--configfile", CONFIG, *WITHOUT_SHARED_FILES)
    done = folder.snakemake(*outputs, *options, "--allowed-rules", *READERS)
    assert done.returncode == 0, done.stdout[-4000:]
    for table in outputs:
        expected, actual = (drop_times(read_frame(root / table)) for root in (finished.path, folder.path))
        pd.testing.assert_frame_equal(actual, expected, obj=table)
