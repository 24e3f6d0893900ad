"""The log and the lock of a job: two processes never run the same job at once, even if Snakemake was killed."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.jobs import NO_LOCKS
from tests.helpers.waiting import TIMEOUT, wait_for

# Enters its job, creates the file NAME.in, and leaves when the file `NAME.may leave` exists.
JOB = """
import sys, time
from pathlib import Path
from batchscape.runtime.job import job_log
name, log, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
with job_log(log):
    print("this is", name, flush=True)
    (folder / f"{name}.in").touch()
    while not (folder / f"{name}.may leave").exists():
        time.sleep(0.01)
"""


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator:
    started = []

    def start(name: str) -> subprocess.Popen:
        command = [sys.executable, "-c", JOB, name, str(tmp_path / "job.log"), str(tmp_path)]
        started.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("end", ["it ends", "it is killed"])
def test_a_job_waits_until_another_process_of_the_same_job_ends(jobs, tmp_path: Path, end: str):
    first = jobs("first")
    wait_for((tmp_path / "first.in").exists)
    (tmp_path / "job.log").unlink()  # as Snakemake does before it starts a job
    second = jobs("second")
    assert "job.log: another process is running this job; waiting for it to end" in second.stderr.readline()
    time.sleep(0.3)
    assert not (tmp_path / "second.in").exists()
    if end == "it ends":
        (tmp_path / "first.may leave").touch()
    else:
        first.send_signal(signal.SIGKILL)
    wait_for((tmp_path / "second.in").exists)
    assert (tmp_path / "job.log").read_text() == "this is second\n"


def test_a_job_writes_only_its_log_and_states(jobs, tmp_path: Path):
    job = jobs("only")
    wait_for((tmp_path / "only.in").exists)
    (tmp_path / "only.may leave").touch()
    assert job.wait(TIMEOUT) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["job.jsonl", "job.log", "only.in", "only.may leave"]
    log = (tmp_path / "job.log").read_text()
    assert re.fullmatch(r"this is only\ntook [\d.]+ s \([\d.]+ s CPU\); startup took [\d.]+ s CPU\n", log)


def test_without_file_locks_a_job_runs_with_a_warning(tmp_path: Path):
    (tmp_path / "only.may leave").touch()
    command = [sys.executable, "-c", NO_LOCKS + JOB, "only", "job.log", "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert done.returncode == 0, done.stderr
    log = (tmp_path / "job.log").read_text()
    for output in (log, done.stderr):
        assert output.count("this file system has no locks") == 1
    assert "this is only" in log


def test_jobs_with_the_same_log_take_turns(tmp_path: Path):
    job = "import os, sys, time; from batchscape.runtime.job import job_log\nwith job_log(sys.argv[1]):\n  {}"
    work = "os.mkdir(sys.argv[2]); time.sleep(0.05); os.rmdir(sys.argv[2])"
    command = [sys.executable, "-c", job.format(work), str(tmp_path / "job.log"), str(tmp_path / "alone")]
    started = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(6)]
    assert [process.wait(TIMEOUT) for process in started] == [0] * 6


def test_garbage_collection_is_disabled_in_imports_and_ignores_their_objects(tmp_path: Path):
    job = (
        "from batchscape.runtime.job import job_log; import gc\n"
        "print(gc.isenabled(), gc.get_freeze_count() > 0, flush=True)\n"
        f"with job_log({str(tmp_path / 'job.log')!r}): print(gc.isenabled(), gc.get_freeze_count() > 0)"
    )
    done = subprocess.run([sys.executable, "-c", job], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"
    assert (tmp_path / "job.log").read_text().startswith("True True\n")


IMPORTING = """
import sys
from batchscape.runtime.startup import finish_startup
if sys.argv[1] == "work":
    finish_startup()
import time
print("in it", flush=True)
time.sleep(900)
"""


@pytest.mark.parametrize("where", ["imports", "work"])
def test_ctrl_c_during_imports_ends_a_process_silently(where: str):
    command = [sys.executable, "-c", IMPORTING, where]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which background jobs of a shell ignore
    ) as job:  # fmt: skip
        assert job.stdout.readline() == "in it\n"
        job.send_signal(signal.SIGINT)
        _, errors = job.communicate(timeout=TIMEOUT)
    assert job.returncode == -signal.SIGINT
    assert ("KeyboardInterrupt" in errors) == (where == "work")


def test_garbage_collection_is_enabled_in_each_worker_process(tmp_path: Path):
    (tmp_path / "work.py").write_text("import gc\ndef tell(): print(gc.isenabled(), gc.get_freeze_count() > 0)")
    rank = [sys.executable, "-m", "batchscape.training.worker", "work", "tell", "{}", "20"]
    environment = {**os.environ, "RANK": "0", "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(rank, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "True True\n"


IN_TURN = """
import contextlib, gc, sys
from pathlib import Path
from batchscape.errors import UserError
from batchscape.runtime.job import run_in_turn
from batchscape.runtime.states import record_state

folder, stops = Path(sys.argv[1]), sys.argv[2] == "stops"

@contextlib.contextmanager
def devices():
    with (folder / "devices").open("a") as file:
        file.write("held ")
        file.flush()
        yield
        file.write("released")

def work(index):
    print("this is", index, gc.get_freeze_count() > 0)
    if index == 1:
        if stops:
            record_state("stopped", step=3)
        raise UserError("part 1 cannot be done")

run_in_turn([folder / f"{index}.log" for index in range(3)], devices, work)
"""


@pytest.mark.parametrize(("end", "done"), [("fails", [0, 1, 2]), ("stops", [0, 1])])
def test_a_part_that_fails_prevents_no_other_unless_it_stops_before_the_time_limit(
    tmp_path: Path, end: str, done: list[int]
):
    command = [sys.executable, "-c", IN_TURN, str(tmp_path), end]
    process = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert (process.returncode, process.stderr) == (1, "part 1 cannot be done\n")
    assert (tmp_path / "devices").read_text() == "held released"
    assert sorted(path.name for path in tmp_path.glob("*.log")) == [f"{index}.log" for index in done]
    startups = []
    for index in done:
        log = (tmp_path / f"{index}.log").read_text().splitlines()
        assert log[0] == f"this is {index} True"
        if index == 1:
            assert log[1:] == ["part 1 cannot be done"]
        else:
            startups.append(float(re.fullmatch(r"took .* startup took ([\d.]+) s CPU", log[1])[1]))
        state = json.loads((tmp_path / f"{index}.jsonl").read_text().splitlines()[-1])["state"]
        assert state == ("failed" if index == 1 else "complete")
    # The libraries are imported once.
    assert all(startup < startups[0] for startup in startups[1:])
