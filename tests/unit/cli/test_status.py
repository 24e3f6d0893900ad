"""The status of a study, from the states that its jobs record and the files that they write."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batchscape.cli.status import (
    JobStatus,
    count_already_complete,
    determine_status,
    format_other_jobs,
    format_status,
    read_other_jobs,
    read_runs,
    summarize_failures,
)
from batchscape.study.study import Study
from tests.helpers.jobs import STAYING_JOB, write_states
from tests.helpers.runs import EPOCH_SECONDS, write_run, write_runs_of
from tests.helpers.waiting import wait_for

STARTED = {"state": "started"}
EPOCHS = [
    STARTED,
    {"state": "evaluated", "epoch": 1, "step": 4, "steps": 36, "train_loss": 0.7, "validation_loss": 0.69},
    {"state": "evaluated", "epoch": 2, "step": 4, "steps": 36, "train_loss": 0.478751, "validation_loss": 1.17613},
]
IN_EPOCH_2 = "epoch 2, training loss 0.478751, validation loss 1.17613"
RESUMED = [STARTED, {"state": "resumed", "epoch": 109, "step": 436}]
WAITING = [STARTED, {"state": "waiting_for_gpus", "count": 1, "gpus": ["0"]}]
STOPPED = [{"state": "stopped", "epoch": 2}, {"state": "failed", "message": "run: stopped after epoch 2"}]


@pytest.mark.parametrize(
    ("recorded", "running", "state", "detail"),
    [
        ([], False, "pending", ""),
        ([], True, "running", "no epoch yet"),
        ([STARTED], True, "running", "no epoch yet"),
        ([STARTED], False, "interrupted", "no epoch yet"),
        (WAITING, True, "running", "waiting for a free GPU"),
        ([*WAITING, {"state": "acquired_gpus", "gpus": ["0"]}], True, "running", "no epoch yet"),
        (RESUMED, True, "running", "resuming after step 436"),
        ([*RESUMED, *EPOCHS[1:]], True, "running", IN_EPOCH_2),
        (EPOCHS, False, "interrupted", IN_EPOCH_2),
        ([*EPOCHS, {"state": "interrupted"}], False, "interrupted", IN_EPOCH_2),
        ([*EPOCHS, *STOPPED], False, "interrupted", IN_EPOCH_2),
        ([*EPOCHS, {"state": "failed", "message": "data.path: no x"}], False, "failed", "data.path: no x"),
        ([*EPOCHS, {"state": "complete"}], False, "pending", ""),
        (
            [STARTED, {"state": "evaluated", "epoch": 3, "train_loss": None, "validation_loss": 0.5}],
            True,
            "running",
            "epoch 3, training loss not finite, validation loss 0.5",
        ),
    ],
)  # fmt: skip
def test_status_of_a_run_follows_from_its_states(recorded: list, running: bool, state: str, detail: str):
    assert determine_status("run", recorded, running) == JobStatus("run", state, detail)


def test_time_to_go_is_the_mean_time_of_a_run_times_the_remaining_runs_over_those_running():
    runs = [
        JobStatus("a", "done", "converged", 100.0),
        JobStatus("b", "done", "budget_spent", 300.0),
        JobStatus("c", "running", "epoch 3"),
        JobStatus("d", "running", "epoch 5"),
        *(JobStatus(name, "pending") for name in "efg"),
    ]
    assert format_status("mine", runs) == [
        "mine: 2 of 7 runs done (1 budget spent, 1 converged), 2 running, 3 pending",
        "about 7 min of training to go, at 3 min per run and 2 at a time",  # 200 s · (3 + 2/2) / 2 = 400 s
        "running c: epoch 3",
        "running d: epoch 5",
    ]


def test_failed_and_interrupted_runs_are_listed_with_how_to_resume():
    lines = format_status(
        "mine", [JobStatus("a", "failed", "data.path: there is no x"), JobStatus("b", "interrupted", "epoch 2")]
    )
    assert lines == [
        "mine: 0 of 2 runs done, 1 interrupted, 1 failed",
        "failed a: data.path: there is no x",
        "interrupted b: epoch 2",
        "if Snakemake is not running, rerun the same command to resume",
    ]


def test_failed_jobs_before_the_runs_and_the_report_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    study = Study.from_mapping({"name": "s"}, "s.yaml")

    def lines() -> list[str]:
        return format_other_jobs(study, read_other_jobs(study))

    unfinished = "no report yet; searches, analyses, tables and figures are not counted here"
    assert lines() == [unfinished]
    message = "model.name: my_net:Net cannot take images"
    write_states(Path(study.paths.log("network")), STARTED, {"state": "failed", "message": message})
    assert lines() == [f"failed network: {message}", unfinished]
    for output in (study.paths.network, study.paths.report):
        Path(output).write_text("")
    (line,) = lines()
    assert re.fullmatch(r"report of \d{4}-\d\d-\d\d \d\d:\d\d: results/s/report.html", line)


def test_status_reads_the_files_of_every_run_and_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    study = Study.from_mapping({"name": "s", "grid": {"seeds": [0]}, "tuning": {"enabled": False}}, "s.yaml")
    done, broken, running, *pending = study.runs
    write_runs_of(study)
    confirmed, *unconfirmed = study.confirmation_runs
    for name in (running, *pending):
        shutil.rmtree(Path(study.paths.run_file(name, "run.json")).parent)
    for name in unconfirmed:
        shutil.rmtree(Path(study.paths.confirmation_file(name, "run.json")).parent)
    Path(study.paths.run_file(broken, "run.json")).write_text("{")
    stopped = pending.pop()  # before the job that was to resume it recorded a state
    (Path(study.paths.run_file(stopped, "run.json")).parent / "resume").mkdir(parents=True)
    log = Path(study.paths.log(f"train/{running}"))
    with subprocess.Popen([sys.executable, "-c", STAYING_JOB, str(log), json.dumps(EPOCHS[1:])]) as job:
        wait_for(lambda: job.poll() is not None or (log.exists() and log.read_text() == "ready\n"))
        assert job.poll() is None
        before = sorted(tmp_path.rglob("*"))
        runs = read_runs(study)
        assert sorted(tmp_path.rglob("*")) == before
        job.kill()
    states = {run.name: run.state for run in runs}
    untouched = dict.fromkeys([*pending, *(f"confirmation/{name}" for name in unconfirmed)], "pending")
    untouched[f"confirmation/{confirmed}"] = "done"
    assert states == {done: "done", broken: "failed", running: "running", stopped: "interrupted", **untouched}
    assert runs[0] == JobStatus(done, "done", "converged", pytest.approx(1.25 * sum(EPOCH_SECONDS)))
    assert runs[1].detail.startswith(f"{study.paths.run_file(broken, 'run.json')}: does not match its schema (")
    assert runs[2].detail == IN_EPOCH_2
    assert read_runs(study)[2] == JobStatus(running, "interrupted", IN_EPOCH_2)


def test_runs_with_other_settings_than_the_study_has_now_are_pending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    settings = {
        "name": "s",
        "grid": {"batch_sizes": [32], "learning_rates": [0.1, 0.2], "seeds": [0]},
        "comparison": {"fixed_learning_rate": 0.1, "high_learning_rate": 0.2},
        "confirmation": {"settings": 1, "seeds": 1},
    }
    study = Study.from_mapping(settings, "s.yaml")
    write_runs_of(study)
    assert {(run.state, run.detail) for run in read_runs(study)} == {("done", "converged")}
    extended = {**settings, "grid": {"batch_sizes": [32], "learning_rates": [0.1, 0.2, 0.4], "seeds": [0]}}
    assert [run.state for run in read_runs(Study.from_mapping(extended, "s.yaml"))].count("pending") == 1
    edited = Study.from_mapping({**settings, "training": {"budget": {"epochs": 7}}}, "s.yaml")
    runs = read_runs(edited)
    assert {(run.state, run.detail, run.seconds) for run in runs} == {
        ("pending", "was trained with other settings than the study has now", None)
    }
    number = len(runs)
    (line,) = format_status("s", runs)
    note = f"of which {number} with results of other settings than the study has now"
    assert line == f"s: 0 of {number} runs done, {number} pending, {note}"
    Path(next(iter(edited.paths.tuned_files.values()))).unlink()
    assert "the search for its learning rate is not complete" in {run.detail for run in read_runs(edited)}


def test_status_as_json_has_one_object_for_each_run_and_job(tmp_path: Path):
    (tmp_path / "s.yaml").write_text("name: s\ngrid: {batch_sizes: [32, 64], learning_rates: [0.1], seeds: [0]}\n")
    study = Study.from_file(tmp_path / "s.yaml")
    done, running, *_ = study.runs
    spec = json.loads(study.specs.run(done))
    write_run((tmp_path / study.paths.run_file(done, "run.json")).parent, spec=spec)
    write_states(tmp_path / study.paths.log(f"train/{running}"), *EPOCHS)
    write_states(tmp_path / study.paths.log("tune/bs64"), STARTED, {"state": "trial", "trial": 3, "trials": 12})
    command = [sys.executable, "-m", "batchscape", "status", "s.yaml", "--json"]
    output = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    objects: list[dict[str, Any]] = [json.loads(line) for line in output.splitlines()]
    names = [each["name"] for each in objects]
    confirmed = [f"confirmation/{name}" for name in study.confirmation_runs]
    assert names == ["prepare", "network", "tune/bs32", "tune/bs64", "report", *study.runs, *confirmed]
    assert {each["kind"] for each in objects[:5]} == {"job"}
    by_name = {each["name"]: each for each in objects}
    assert (by_name[done]["kind"], by_name[done]["state"], by_name[done]["detail"]) == ("run", "done", "converged")
    assert (by_name[running]["state"], by_name[running]["last"]) == ("interrupted", EPOCHS[-1])
    assert by_name["tune/bs64"]["state"] == "interrupted"
    assert (by_name["tune/bs64"]["detail"], by_name["tune/bs64"]["last"]["trial"]) == ("", 3)
    assert by_name["report"] == {
        **{"kind": "job", "name": "report", "state": "pending", "detail": ""},
        **{"seconds": None, "last": None},
    }


SNAKEMAKE = """\
Error in rule network:
    message: None
    log: results/s/logs/network.log (check log file(s) for error details)
Error in rule train:
    log: results/s/logs/train/{}.log (check log file(s) for error details)
"""


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    monkeypatch.chdir(tmp_path)
    return lambda job, *states: write_states(Path(f"results/s/logs/{job}.log"), STARTED, *states)


def test_failed_jobs_are_listed_once_but_not_those_that_ctrl_c_interrupted(record: Callable[..., None]):
    record("network", {"state": "failed", "message": "model.name: no"})
    record("train/a", {"state": "failed", "message": "KeyError: 1"})
    record("train/b", *EPOCHS[1:], {"state": "interrupted"})
    assert summarize_failures("".join(map(SNAKEMAKE.format, ("a", "b", "gone"))), "results/s/logs") == [
        "results/s/logs/network.log: model.name: no",
        "results/s/logs/train/a.log: KeyError: 1",
    ]
    assert summarize_failures(SNAKEMAKE, "results/another/logs") == []


@pytest.mark.parametrize("message", ["died with <Signals.SIGKILL: 9>.", "returned non-zero exit status 137."])
def test_a_killed_job_is_listed_although_it_recorded_no_failure(record: Callable[..., None], message: str):
    record("network", {"state": "interrupted"})
    record("train/a", *EPOCHS[1:])
    (line,) = summarize_failures(f"Command 'python' {message}\n" + SNAKEMAKE.format("a"), "results/s/logs")
    assert line.startswith("results/s/logs/train/a.log: the job was killed, as Linux does when memory runs out; ")


def test_only_jobs_that_had_nothing_to_do_count_as_already_complete(record: Callable[..., None]):
    already = [{"state": "already_complete"}, {"state": "complete"}]
    record("tune/a", *already)
    record("tune/b", *already[:1], {"state": "trial", "trial": 2}, *already[1:])  # one run of a trial was complete
    record("tune/c", *EPOCHS[1:], *already[1:])
    logs = [f"results/s/logs/tune/{name}.log" for name in "abcd"]
    assert count_already_complete(logs) == 1
