"""The states that jobs record, whatever happens to a job."""

import json
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from batchscape.config.run import RunSpec
from batchscape.runtime import states
from batchscape.runtime.states import read_states, record_state, recorded_states
from batchscape.training.execution import Execution
from batchscape.training.train import train
from tests.helpers.jobs import STAYING_JOB, write_states
from tests.helpers.waiting import TIMEOUT, wait_for

FAILING_JOB = """
import sys
from batchscape.errors import UserError
from batchscape.runtime.job import job_log
with job_log(sys.argv[1]):
    raise eval(sys.argv[2])
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "bs32-lr0.1-seed0.log"


def names(log: Path) -> list[str]:
    return [each["state"] for each in read_states(log)]


def attempt(log: Path, *epochs: int) -> None:
    with recorded_states(log):
        log.touch()
        for epoch in epochs:
            record_state(
                states.EVALUATED,
                epoch=epoch,
                step=3 * epoch,
                steps=27,
                train_loss=0.1234567,
                validation_loss=float("nan"),
            )


def test_states_are_lines_of_json_with_rounded_losses(log: Path):
    attempt(log, 1)
    started, epoch = map(json.loads, log.with_suffix(".jsonl").read_text().splitlines())
    assert (started["state"], started.keys()) == ("started", {"time", "state", "pid", "host"})
    assert (
        epoch.items() >= {"epoch": 1, "step": 3, "steps": 27, "train_loss": 0.123457, "validation_loss": None}.items()
    )


def test_states_of_the_latest_attempt_are_read(log: Path):
    attempt(log, 1, 2)
    attempt(log, 3)
    assert [each.get("epoch") for each in read_states(log)] == [None, 3]
    assert len(log.with_suffix(".jsonl").read_text().splitlines()) == 5


def test_no_state_is_read_if_the_log_was_deleted_or_never_written(log: Path):
    assert read_states(log) == []
    attempt(log, 1)
    log.unlink()  # as Snakemake does before it starts the next attempt
    assert read_states(log) == []
    log.touch()
    log.with_suffix(".jsonl").unlink()
    assert read_states(log) == []


@pytest.mark.parametrize("length", range(1, 60, 7))
def test_an_incomplete_last_line_is_ignored_and_the_next_attempt_continues_behind_it(log: Path, length: int):
    attempt(log, 1, 2)
    file = log.with_suffix(".jsonl")
    file.write_bytes(file.read_bytes()[:-length])
    assert names(log) == ["started", "evaluated", *["evaluated"] * (length == 1)]
    states._open.cache_clear()  # another process
    attempt(log, 3)
    assert [each.get("epoch") for each in read_states(log)] == [None, 3]


@pytest.mark.parametrize("line", ["[1]", "3", "null", '{"no": "state"}', "\x00\x00", "\xff", "{", ""])
def test_lines_that_are_no_state_are_ignored(log: Path, line: str):
    write_states(log, {"state": "started"})
    with log.with_suffix(".jsonl").open("ab") as stream:
        stream.write(line.encode("latin-1") + b'\n{"state": "evaluated", "epoch": 1}\n')
    assert names(log) == ["started", "evaluated"]


def test_a_long_file_is_read_from_its_end(log: Path):
    attempt(log, *range(1, 1000))
    assert log.with_suffix(".jsonl").stat().st_size > 2 * states.TAIL
    recorded = read_states(log)
    assert len(recorded) > 50
    assert {each["state"] for each in recorded} == {"evaluated"}
    assert recorded[-1]["epoch"] == 999


def test_a_long_message_is_read_in_part(log: Path):
    with recorded_states(log):
        log.touch()
        record_state(states.FAILED, message="ü" * 100_000)
    assert names(log) == ["started", "failed"]
    assert read_states(log)[-1]["message"] == "ü" * states.MAX_MESSAGE


def test_outside_a_job_and_on_a_full_disk_nothing_is_recorded(log: Path):
    record_state(states.COMPLETE)
    assert list(log.parent.iterdir()) == []
    log.with_suffix(".jsonl").symlink_to("/dev/full")
    with recorded_states(log):
        record_state(states.COMPLETE)


@pytest.mark.parametrize("num_bytes", [0, 20])
def test_states_of_an_earlier_attempt_do_not_pass_for_those_of_one_on_a_full_disk(log: Path, num_bytes: int):
    file = log.with_suffix(".jsonl")
    with recorded_states(log):
        log.touch()
        record_state(states.FAILED, message="data.path: no x")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size + num_bytes, hard))
    try:
        with recorded_states(log):
            assert names(log) == []
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    attempt(log, 1)
    assert names(log) == ["started", "evaluated"]


def test_a_state_behind_a_partial_line_of_the_same_process_is_read(log: Path):
    with recorded_states(log):
        log.touch()
        with log.with_suffix(".jsonl").open("a") as stream:
            stream.write('{"time": 1, "sta')
        record_state(states.FAILED, message="a\udcffb")
    assert [each.get("message") for each in read_states(log)] == [None, "a?b"]


@pytest.mark.parametrize(
    ("error", "last"),
    [
        ("KeyError(1)", {"state": "failed", "message": "KeyError: 1"}),
        ("MemoryError()", {"state": "failed", "message": "MemoryError"}),
        ("UserError('data.path: no x')", {"state": "failed", "message": "data.path: no x"}),
        ("__import__('subprocess').SubprocessError('a\\nb')", {"message": "subprocess.SubprocessError: a"}),
        ("SyntaxError('bad', ('f.py', 1, 1, '((', 1, 2))", {"message": "SyntaxError: bad"}),
        ("KeyboardInterrupt()", {"state": "interrupted"}),
        ("SystemExit(3)", {"state": "interrupted"}),
    ],
)
def test_a_job_that_fails_records_one_line_of_its_error(log: Path, error: str, last: dict[str, Any]):
    subprocess.run([sys.executable, "-c", FAILING_JOB, str(log), error], capture_output=True, timeout=TIMEOUT)
    assert names(log)[0] == "started"
    assert read_states(log)[-1].items() >= last.items()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_what_a_job_recorded_remains_when_it_is_killed(log: Path, end: signal.Signals):
    epoch = {"state": "evaluated", "epoch": 1}
    with subprocess.Popen(
        [sys.executable, "-c", STAYING_JOB, str(log), json.dumps([epoch])],
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which background jobs of a shell ignore
        stderr=subprocess.DEVNULL,
    ) as job:
        wait_for(lambda: log.exists() and log.read_text() == "ready\n")
        job.send_signal(end)
    assert names(log) == ["started", "evaluated", *["interrupted"] * (end == signal.SIGINT)]


@pytest.mark.parametrize("devices", [1, 2])
def test_a_training_records_each_epoch_once_and_a_complete_one_that_it_is(
    small_data_file: Path, log: Path, devices: int
):
    spec = RunSpec.model_validate(
        {
            **{"batch_size": 32, "learning_rate": 0.05, "seed": 1, "model": {"name": "mlp", "dense": [8]}},
            "training": {"budget": {"epochs": 3}, "accelerator": "cpu"},
        }
    )
    log.touch()
    for expected in (["started", "evaluated", "evaluated", "evaluated"], ["started", "already_complete"]):
        with recorded_states(log):
            train(spec, small_data_file, log.parent / "run", Execution(code="0", devices=devices))
        assert names(log) == expected


def test_a_training_that_stops_for_the_time_limit_records_where_it_resumes(
    small_data_file: Path, log: Path, refusal: Any
):
    spec = RunSpec.model_validate(
        {
            **{"batch_size": 32, "learning_rate": 0.05, "seed": 1, "model": {"name": "mlp", "dense": [8]}},
            "training": {"budget": {"epochs": 2}, "accelerator": "cpu"},
        }
    )
    log.touch()
    with recorded_states(log):
        refusal(train, spec, small_data_file, log.parent / "run", Execution(deadline=0.0))
    assert names(log) == ["started", "evaluated", "stopped"]
    with recorded_states(log):
        train(spec, small_data_file, log.parent / "run")
    assert [(each["state"], each.get("epoch")) for each in read_states(log)[1:]] == [("resumed", 1), ("evaluated", 2)]
