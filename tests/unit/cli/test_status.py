"""Where a study stands, from what its runs have written."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from batchscape.cli.status import RunStatus, failures, format_status, read_other_jobs, read_status, status_of
from batchscape.study.study import Study
from tests.helpers.jobs import JOB
from tests.helpers.runs import EPOCH_SECONDS, write_run

EPOCHS = """\
20:04:40 bs32-lr0.01-seed0: batch size 32, learning rate 0.01, seed 0; 3361 parameters, 45 batches an epoch
20:04:45 epoch 1: training loss 0.7, validation loss 0.69, validation accuracy 0.5, 0.023 s
20:04:46 epoch 2: training loss 0.478751, validation loss 1.17613, validation accuracy 0.5583, 0.023 s
"""


@pytest.mark.parametrize(
    ("log", "at_work", "state", "detail"),
    [
        (None, True, "pending", ""),
        (EPOCHS, True, "running", "epoch 2, training loss 0.478751, validation loss 1.17613"),
        (EPOCHS, False, "interrupted", "epoch 2, training loss 0.478751, validation loss 1.17613"),
        ("", True, "running", "no epoch yet"),
        ("/lib/x.py:3: UserWarning: mind this\n", True, "running", "no epoch yet"),
        (EPOCHS + "data.path: there is no x\n", False, "failed", "data.path: there is no x"),
        ("10:00:00 resuming after epoch 109\n", True, "running", "goes on after epoch 109"),
        (EPOCHS + "10:00:09 converged after 9 epochs; best epoch: 4\n", False, "pending", ""),
        ("Traceback (most recent call last):\n  File\nKeyError: 1\n", False, "failed", "KeyError: 1"),
        (EPOCHS + "my study/run (1): is corrupt\n", False, "failed", "my study/run (1): is corrupt"),
    ],
)  # fmt: skip
def test_a_run_is_what_its_log_says(log: str | None, at_work: bool, state: str, detail: str):
    assert status_of("run", log, at_work) == RunStatus("run", state, detail)


def test_the_rest_takes_the_mean_time_of_a_run_times_those_ahead_shared_by_those_that_run():
    runs = [
        RunStatus("a", "done", "converged", 100.0),
        RunStatus("b", "done", "max_epochs", 300.0),
        RunStatus("c", "running", "epoch 3"),
        RunStatus("d", "running", "epoch 5"),
        *(RunStatus(name, "pending") for name in "efg"),
    ]
    assert format_status("mine", runs) == [
        "mine: 2 of 7 runs done (1 converged, 1 max epochs), 2 running, 3 pending",
        "about 7 min of training to go, at 3 min a run and 2 at a time",  # 200 s · (3 + 2/2) / 2 = 400 s
        "running c: epoch 3",
        "running d: epoch 5",
    ]


def test_failed_and_interrupted_runs_are_named_with_the_way_on():
    lines = format_status(
        "mine", [RunStatus("a", "failed", "data.path: there is no x"), RunStatus("b", "interrupted", "epoch 2")]
    )
    assert lines == [
        "mine: 0 of 2 runs done, 1 interrupted, 1 failed",
        "failed a: data.path: there is no x",
        "interrupted b: epoch 2",
        "if no Snakemake is at work here, the same command goes on from here",
    ]


def test_what_comes_before_the_runs_and_after_them_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    study = Study.from_mapping({"name": "s"}, "s.yaml")
    unfinished = "no report yet; searches, analyses, tables and figures are not counted here"
    assert read_other_jobs(study) == [unfinished]
    log, said = Path(study.log("network")), "model.name: my_net:Net cannot take images"
    log.parent.mkdir(parents=True)
    log.write_text(f"10:00:00 looking\n{said}\n")
    assert read_other_jobs(study) == [f"failed network: {said}", unfinished]
    for made in (study.network_file, study.report):
        Path(made).write_text("")
    (line,) = read_other_jobs(study)
    assert re.fullmatch(r"report of \d{4}-\d\d-\d\d \d\d:\d\d: results/s/report.html", line)


def test_it_reads_the_files_of_every_run_and_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    study = Study.from_mapping({"name": "s", "grid": {"seeds": [0]}, "tuning": {"enabled": False}}, "s.yaml")
    done, broken, running, *left = study.runs
    for name in (done, broken):
        write_run(Path(study.run_file(name, "run.json")).parent)
    Path(study.run_file(broken, "run.json")).write_text("{")
    stopped = left.pop()  # before the job that was to resume it wrote a log
    (Path(study.run_file(stopped, "run.json")).parent / "resume").mkdir(parents=True)
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
    untouched = dict.fromkeys(left, "pending")
    assert found == {done: "done", broken: "failed", running: "running", stopped: "interrupted", **untouched}
    assert runs[0] == RunStatus(done, "done", "converged", pytest.approx(1.25 * sum(EPOCH_SECONDS)))
    assert runs[1].detail.startswith(f"{study.run_file(broken, 'run.json')}: does not match its schema (")
    assert read_status(study)[2].state == "interrupted"


SNAKEMAKE = """\
Error in rule network:
    message: None
    log: results/s/logs/network.log (check log file(s) for error details)
Error in rule train:
    log: results/s/logs/train/{}.log (check log file(s) for error details)
"""


def test_jobs_that_failed_are_named_once_each_with_what_they_said_but_not_those_that_ctrl_c_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results/s/logs/train").mkdir(parents=True)
    (tmp_path / "results/s/logs/network.log").write_text("began\nmodel.name: no\n")
    (tmp_path / "results/s/logs/train/a.log").write_text("Traceback (most recent call last):\nKeyError: 1\n")
    (tmp_path / "results/s/logs/train/b.log").write_text(EPOCHS + "Traceback:\nKeyboardInterrupt\n")
    assert failures("".join(map(SNAKEMAKE.format, ("a", "b", "gone"))), "results/s/logs") == [
        "results/s/logs/network.log: model.name: no",
        "results/s/logs/train/a.log: KeyError: 1",
    ]
    assert failures(SNAKEMAKE, "results/another/logs") == []


@pytest.mark.parametrize("how", ["died with <Signals.SIGKILL: 9>.", "returned non-zero exit status 137."])
def test_a_job_that_was_killed_is_named_though_it_could_say_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results/s/logs/train").mkdir(parents=True)
    (tmp_path / "results/s/logs/network.log").write_text("began\nKeyboardInterrupt\n")
    (tmp_path / "results/s/logs/train/a.log").write_text(EPOCHS)
    (line,) = failures(f"Command 'python' {how}\n" + SNAKEMAKE.format("a"), "results/s/logs")
    assert line.startswith("results/s/logs/train/a.log: the job was killed, as Linux does when memory runs out; ")
