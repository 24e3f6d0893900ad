"""Two jobs never do the same work at once, whatever became of the Snakemake that started the first."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

# Enters its job, says so, and leaves it when it is told to.
JOB = """
import sys, time
from pathlib import Path
from batchscape.job import job_log
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


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("end", ["it ends", "it is killed"])
def test_a_job_waits_until_an_earlier_one_that_has_its_log_is_gone(jobs, tmp_path: Path, end: str):
    first = jobs("first")
    wait_for(tmp_path / "first.in")
    second = jobs("second")
    assert "job.log: an earlier job is still at work on this" in second.stderr.readline()
    time.sleep(0.3)
    assert not (tmp_path / "second.in").exists()
    assert (tmp_path / "job.log").read_text() == "this is first\n"
    if end == "it ends":
        (tmp_path / "first.may leave").touch()
    else:
        first.send_signal(signal.SIGKILL)
    wait_for(tmp_path / "second.in")
    assert (tmp_path / "job.log").read_text() == "this is second\n"


def test_what_a_job_started_keeps_the_next_one_out_too(tmp_path: Path):
    job = "import subprocess, sys; from batchscape.job import job_log\nwith job_log(sys.argv[1]): subprocess.Popen({})"
    child = ["sleep", "1.5"]
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", job.format(child), str(tmp_path / "job.log")], check=True)
    subprocess.run([sys.executable, "-c", job.format(["true"]), str(tmp_path / "job.log")], check=True)
    assert time.monotonic() - started >= 1.5
