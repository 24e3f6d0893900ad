"""Where a study stands, from what its runs have written."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from batchscape.status import RunStatus, described, read_status, status_of
from batchscape.study import Study
from tests.unit.test_analysis import write_run

EPOCHS = """\
20:04:40 bs32-lr0.01-seed0: batch size 32, learning rate 0.01, seed 0; 3361 parameters, 45 batches an epoch
20:04:45 epoch 1: training loss 0.7, validation loss 0.69, validation accuracy 0.5, 0.023 s
20:04:46 epoch 2: training loss 0.478751, validation loss 1.17613, validation accuracy 0.5583, 0.023 s
"""
WHOLE = {
    "status": "converged",
    "provenance": {"started": "2026-01-01T10:00:00+00:00", "finished": "2026-01-01T10:02:30+00:00"},
}


JOB = """
import sys, time
from batchscape.job import job_log
with job_log(sys.argv[1]):
    print(sys.argv[2], end="", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize(
    ("summary", "log", "at_work", "state", "detail"),
    [
        (WHOLE, EPOCHS, True, "done", "converged"),
        (None, None, True, "left", ""),
        (None, EPOCHS, True, "running", "epoch 2, training loss 0.478751, validation loss 1.17613"),
        (None, EPOCHS, False, "interrupted", "epoch 2, training loss 0.478751, validation loss 1.17613"),
        (None, "", True, "running", "no epoch yet"),
        (None, "/lib/x.py:3: UserWarning: mind this\n", True, "running", "no epoch yet"),
        (None, EPOCHS + "data.path: there is no x\n", False, "failed", "data.path: there is no x"),
        (None, "10:00:00 going on after epoch 109\n", True, "running", "goes on after epoch 109"),
        (None, EPOCHS + "10:00:09 converged after 9 epochs; best epoch: 4\n", False, "left", ""),
        (None, "Traceback (most recent call last):\n  File\nKeyError: 1\n", False, "failed", "KeyError: 1"),
    ],
)  # fmt: skip
def test_a_run_is_what_its_files_say(summary: dict | None, log: str | None, at_work: bool, state: str, detail: str):
    found = status_of("run", summary, log, at_work)
    assert (found.state, found.detail) == (state, detail)
    assert found.seconds == (150 if summary else None)


def test_the_rest_takes_the_mean_time_of_a_run_times_those_ahead_shared_by_those_that_run():
    runs = [
        RunStatus("a", "done", "converged", 100.0),
        RunStatus("b", "done", "max_epochs", 300.0),
        RunStatus("c", "running", "epoch 3"),
        RunStatus("d", "running", "epoch 5"),
        *(RunStatus(name, "left") for name in "efg"),
    ]
    assert described("mine", runs) == [
        "mine: 2 of 7 runs done (1 converged, 1 max epochs), 2 running, 3 left",
        "about 7 min of training to go, at 3 min a run and 2 at a time",  # 200 s · (3 + 2/2) / 2 = 400 s
        "running c: epoch 3",
        "running d: epoch 5",
    ]


def test_failed_and_interrupted_runs_are_named_with_the_way_on():
    lines = described(
        "mine", [RunStatus("a", "failed", "data.path: there is no x"), RunStatus("b", "interrupted", "epoch 2")]
    )
    assert lines == [
        "mine: 0 of 2 runs done, 1 interrupted, 1 failed",
        "failed a: data.path: there is no x",
        "interrupted b: epoch 2",
        "if no Snakemake is at work here, the same command goes on from here",
    ]


def test_it_reads_the_files_of_every_run_and_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    study = Study.from_mapping({"name": "s", "grid": {"seeds": [0]}, "tuning": {"enabled": False}}, "s.yaml")
    done, broken, running, *left = study.runs
    for name in (done, broken):
        write_run(Path(study.run_file(name, "run.json")).parent)
    Path(study.run_file(broken, "run.json")).write_text("{")
    log = Path(study.log(f"train/{running}"))
    with subprocess.Popen([sys.executable, "-c", JOB, str(log), EPOCHS]) as job:
        while not log.exists() or log.read_text() != EPOCHS:
            assert job.poll() is None
            time.sleep(0.01)
        before = sorted(tmp_path.rglob("*"))
        runs = read_status(study)
        assert sorted(tmp_path.rglob("*")) == before
        job.kill()
    found = {run.name: run.state for run in runs}
    assert found == {done: "done", broken: "failed", running: "running", **dict.fromkeys(left, "left")}
    assert runs[1].detail.startswith(f"{study.run_file(broken, 'run.json')}: is not as it was written (")
    assert read_status(study)[2].state == "interrupted"
