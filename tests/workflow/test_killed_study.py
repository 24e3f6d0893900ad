"""A study that is killed with all its jobs, and goes on."""

import os
import signal
import time
from pathlib import Path

import pytest

from batchscape.frames import read_frame
from batchscape.study import Study
from tests.workflow.conftest import PROJECT, Checkout

pytestmark = pytest.mark.slow

SMOKE = Study.from_file(PROJECT / "config" / "smoke.yaml")


def test_a_killed_study_goes_on_where_it_was(tmp_path: Path):
    checkout = Checkout.at(tmp_path / "killed")
    runs = checkout.path / "results" / "smoke" / "runs"
    with checkout.started("--cores", "2", "all", "--configfile", "config/smoke.yaml") as process:
        deadline = time.monotonic() + 300
        while not list(runs.glob("*/run.json")):
            assert process.poll() is None, "the study ended before its first run was whole"
            assert time.monotonic() < deadline
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGKILL)
    whole = {path.parent.name: path.stat().st_mtime_ns for path in runs.glob("*/run.json")}
    assert 0 < len(whole) < len(SMOKE.runs), "the kill came after the last run"

    checkout.snakemake("--unlock", "--configfile", "config/smoke.yaml")
    done = checkout.snakemake("--cores", "8", "results/smoke/tables/runs.csv", "--configfile", "config/smoke.yaml")
    assert done.returncode == 0, done.stdout[-3000:]
    # A run whose job Snakemake had not yet marked as done trains again; the marked ones are left as they are.
    kept = [run for run, written in whole.items() if (runs / run / "run.json").stat().st_mtime_ns == written]
    assert len(kept) >= len(whole) - 2
    assert set(read_frame(checkout.path / "results" / "smoke" / "tables" / "runs.csv")["run"]) == set(SMOKE.runs)
