"""GPUs are given to one job at a time: real processes on made-up devices."""

import errno
import json
import os
import select
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from batchscape.errors import UserError
from batchscape.runtime.gpus import acquire_gpus, allocate_gpus, visible_gpus
from tests.helpers.jobs import AS_NFS
from tests.helpers.waiting import TIMEOUT

# Says which devices it got, and keeps them until it is told to go on.
HOLDER = """
import json, logging, os, sys
from pathlib import Path
from batchscape.runtime.gpus import acquire_gpus
logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
arguments = json.loads(sys.argv[1])
folder = arguments.pop("folder", None)
if "user" in arguments:
    os.setuid(arguments.pop("user"))
with acquire_gpus(folder=folder and Path(folder), **arguments) as gpus:
    print(json.dumps([gpus, os.environ["CUDA_VISIBLE_DEVICES"]]), flush=True)
    sys.stdin.readline()
"""
# Takes devices over and over, and writes down when it came and went.
WORKER = """
import json, os, sys, time
from pathlib import Path
from batchscape.runtime.gpus import acquire_gpus
arguments, times = json.loads(sys.argv[1]), int(sys.argv[2])
journal = os.open(sys.argv[3], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
folder = Path(arguments.pop("folder"))
for _ in range(times):
    with acquire_gpus(folder=folder, **arguments) as gpus:
        os.write(journal, "".join(f"enter {gpu} {os.getpid()}\\n" for gpu in gpus).encode())
        time.sleep(0.02)
        os.write(journal, "".join(f"leave {gpu} {os.getpid()}\\n" for gpu in gpus).encode())
"""


class Holder:
    """A process that asks for devices."""

    def __init__(self, environment: dict[str, str], arguments: dict):
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-c", HOLDER, json.dumps(arguments)],
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,  # `select` sees nothing of a second line that stands in a buffer
        )

    def line(self) -> str:
        assert select.select([self.process.stdout], [], [], TIMEOUT)[0], "the process says nothing"
        return self.process.stdout.readline().decode()

    def gpus(self) -> list[str]:
        """Wait until it has devices."""
        while (line := self.line()).startswith("waiting"):
            pass
        names, environment = json.loads(line)
        assert environment == ",".join(names)
        return names

    def waits(self) -> bool:
        return self.line().startswith("waiting")

    def has_them(self) -> bool:
        return bool(select.select([self.process.stdout], [], [], 0.5)[0])

    def leave(self) -> None:
        self.process.communicate(b"\n", timeout=TIMEOUT)
        assert self.process.returncode == 0


class Machine:
    def __init__(self, folder: Path, stack: ExitStack):
        self.folder = folder
        self.stack = stack

    def job(self, count: int = 1, environment: dict[str, str] | None = None, **arguments) -> Holder:
        holder = Holder(environment or {}, {"folder": str(self.folder), "count": count, **arguments})
        self.stack.enter_context(holder.process)
        self.stack.callback(holder.process.kill)
        return holder


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with ExitStack() as stack:
        yield Machine(tmp_path / "locks", stack)


@contextmanager
def visible(monkeypatch: pytest.MonkeyPatch, names: str | None) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if names is not None:
            patch.setenv("CUDA_VISIBLE_DEVICES", names)
        yield


def work(folder: Path, journal: Path, jobs: list[dict], times: int) -> list[tuple[str, str, str]]:
    """Let processes take devices `times` times each; return who came and went, in order."""
    with ExitStack() as stack:
        processes = []
        for job in jobs:
            arguments = json.dumps({"folder": str(folder), **job})
            process = subprocess.Popen([sys.executable, "-c", WORKER, arguments, str(times), str(journal)])
            processes.append(stack.enter_context(process))
            stack.callback(process.kill)
        assert [process.wait(TIMEOUT) for process in processes] == [0] * len(jobs)
    return [tuple(line.split()) for line in journal.read_text().splitlines()]


def assert_alone(events: list[tuple[str, str, str]]) -> None:
    on: dict[str, str] = {}
    for event, gpu, process in events:
        if event == "enter":
            assert gpu not in on, f"{process} came to {gpu} while {on[gpu]} was there"
            on[gpu] = process
        else:
            assert on.pop(gpu) == process
    assert not on


def test_a_job_that_takes_no_gpu_sees_none(monkeypatch: pytest.MonkeyPatch):
    for given in ("0,1", None):
        with visible(monkeypatch, given):
            with allocate_gpus(0) as names:
                assert (names, os.environ["CUDA_VISIBLE_DEVICES"]) == ([], "")
            assert os.environ.get("CUDA_VISIBLE_DEVICES") == given


def test_a_job_of_several_nodes_sees_the_gpus_that_slurm_gave_it(monkeypatch: pytest.MonkeyPatch):
    with visible(monkeypatch, "2,3"), allocate_gpus(0, managed_by_slurm=True):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "2,3"


def test_two_jobs_never_hold_one_gpu_at_once(tmp_path: Path):
    events = work(tmp_path / "locks", tmp_path / "journal", [{"count": 1, "gpus": ["0", "GPU-a"]}] * 5, times=6)
    assert len(events) == 2 * 5 * 6
    assert_alone(events)
    assert {gpu for _, gpu, _ in events} == {"0", "GPU-a"}


def test_jobs_that_need_two_gpus_each_do_not_wait_for_each_other(tmp_path: Path):
    jobs = [{"count": 2, "gpus": gpus} for gpus in (["0", "1"], ["1", "0"], ["2", "1", "0"])]
    events = work(tmp_path / "locks", tmp_path / "journal", jobs, times=6)
    assert len(events) == 2 * 2 * 3 * 6
    assert_alone(events)


def test_as_many_jobs_share_a_gpu_as_they_are_told(machine: Machine):
    first, second = (machine.job(jobs_per_gpu=2, gpus=["0"]) for _ in range(2))
    assert first.gpus() == second.gpus() == ["0"]
    third = machine.job(jobs_per_gpu=2, gpus=["0"])
    assert third.waits()
    assert not third.has_them()
    second.leave()
    assert third.gpus() == ["0"]


def test_jobs_that_may_share_a_gpu_take_an_empty_one_first(machine: Machine):
    assert machine.job(jobs_per_gpu=2, gpus=["0", "1"]).gpus() == ["0"]
    assert machine.job(jobs_per_gpu=2, gpus=["0", "1"]).gpus() == ["1"]
    assert machine.job(jobs_per_gpu=2, gpus=["0", "1"]).gpus() == ["0"]


@pytest.mark.parametrize("alone", [{"jobs_per_gpu": 2, "exclusive": True}, {"jobs_per_gpu": 1}])
def test_a_job_that_wants_a_gpu_alone_meets_nobody_there(machine: Machine, alone: dict):
    sharing = machine.job(jobs_per_gpu=2, gpus=["0"])
    sharing.gpus()
    timing = machine.job(gpus=["0"], **alone)
    assert timing.waits()
    assert not timing.has_them()
    sharing.leave()
    assert timing.gpus() == ["0"]
    late = machine.job(jobs_per_gpu=2, gpus=["0"])
    assert late.waits()
    assert not late.has_them()
    timing.leave()
    assert late.gpus() == ["0"]


def test_a_killed_job_frees_its_gpus(machine: Machine):
    killed = machine.job(count=2, gpus=["0", "1"])
    killed.gpus()
    after = machine.job(count=2, gpus=["0", "1"])
    assert after.waits()
    killed.process.kill()
    assert after.gpus() == ["0", "1"]


def test_a_killed_job_that_waits_lets_the_next_one_through(machine: Machine):
    holder = machine.job(gpus=["0"])
    holder.gpus()
    killed = machine.job(gpus=["0"])
    assert killed.waits()
    after = machine.job(gpus=["0"])
    assert after.waits()
    killed.process.kill()
    holder.leave()
    assert after.gpus() == ["0"]


def test_a_process_that_was_forked_meanwhile_keeps_no_gpu(tmp_path: Path):
    with acquire_gpus(1, gpus=["0"], folder=tmp_path / "locks"):
        child = os.fork()
        if child == 0:
            signal.pause()
    try:
        work(tmp_path / "locks", tmp_path / "journal", [{"count": 1, "gpus": ["0"]}], times=1)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_small_jobs_that_come_later_do_not_overtake_one_that_needs_all(machine: Machine):
    small = [machine.job(gpus=["0", "1"]) for _ in range(2)]
    assert sorted(name for job in small for name in job.gpus()) == ["0", "1"]
    large = machine.job(count=2, gpus=["0", "1"])
    assert large.waits()
    late = [machine.job(gpus=["0", "1"]) for _ in range(2)]
    assert all(job.waits() for job in late)
    small[0].leave()
    assert not any(job.has_them() for job in (large, *late))
    small[1].leave()
    assert large.gpus() == ["0", "1"]
    assert not any(job.has_them() for job in late)
    large.leave()
    assert sorted(name for job in late for name in job.gpus()) == ["0", "1"]


def test_who_waits_for_one_gpu_does_not_keep_others_from_another(machine: Machine):
    machine.job(gpus=["0"]).gpus()
    assert machine.job(gpus=["0"]).waits()
    assert machine.job(gpus=["1"]).gpus() == ["1"]


def test_the_gpus_given_from_outside_are_taken_and_named(machine: Machine):
    outside = {"CUDA_VISIBLE_DEVICES": "3,5,7"}
    machine.job(gpus=["5"]).gpus()
    assert machine.job(count=2, environment=outside).gpus() == ["3", "7"]


@pytest.mark.parametrize("before", ["4,6", None])
def test_afterwards_the_environment_is_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str | None):
    with visible(monkeypatch, before):
        with pytest.raises(RuntimeError, match="in the job"), acquire_gpus(1, gpus=["6"], folder=tmp_path / "locks"):
            assert os.environ["CUDA_VISIBLE_DEVICES"] == "6"
            raise RuntimeError("in the job")
        assert os.environ.get("CUDA_VISIBLE_DEVICES") == before
        with acquire_gpus(1, gpus=["6"], folder=tmp_path / "locks") as names:  # what was held is free again
            assert names == ["6"]


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("", []),
        ("0", ["0"]),
        (" 2, 00 ,+1", ["2", "0", "1"]),
        ("1,-1,2", ["1"]),
        ("-1", []),
        ("1,,2", ["1"]),
        ("NoDevFiles", []),
        ("GPU-8932f937,GPU-0a1b,1", ["GPU-8932f937", "GPU-0a1b"]),
        ("MIG-7c3e,GPU-8932f937", ["MIG-7c3e"]),
        ("1,GPU-8932f937", ["1"]),
        ("1,2,1", []),
    ],
)
def test_the_variable_is_read_as_cuda_reads_it(monkeypatch: pytest.MonkeyPatch, given: str, names: list[str]):
    with visible(monkeypatch, given):
        assert visible_gpus() == names


def test_without_the_variable_all_gpus_of_the_machine_are_visible(monkeypatch: pytest.MonkeyPatch):
    import torch

    with visible(monkeypatch, None):
        initialised = torch.cuda.is_initialized()
        assert visible_gpus() == [str(index) for index in range(torch.cuda.device_count())]
        assert torch.cuda.is_initialized() == initialised


@pytest.mark.parametrize(("given", "told"), [("5", r"needs 2 GPUs, but 1 .*\(CUDA_VISIBLE_DEVICES=5\)"), ("", "none")])
def test_too_few_gpus_are_told_with_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, told: str):
    message = rf"^resources\.devices: .*{told}"
    with (
        visible(monkeypatch, given),
        pytest.raises(UserError, match=message),
        acquire_gpus(2, folder=tmp_path / "locks"),
    ):
        pass


def test_the_name_of_a_mig_device_may_hold_slashes(machine: Machine):
    names = ["MIG-GPU-5d5ba0d6/1/0", "MIG-GPU-5d5ba0d6/2/0"]
    assert machine.job(gpus=names).gpus() == names[:1]
    assert machine.job(gpus=names).gpus() == names[1:]


def test_the_jobs_of_a_slurm_job_have_locks_of_their_own(machine: Machine, tmp_path: Path):
    jobs = [
        machine.job(folder=None, gpus=["0"], environment={"TMPDIR": str(tmp_path), "SLURM_JOB_ID": number})
        for number in ("7", "8")
    ]
    assert [job.gpus() for job in jobs] == [["0"], ["0"]]
    assert machine.job(folder=None, gpus=["0"], environment={"TMPDIR": str(tmp_path), "SLURM_JOB_ID": "7"}).waits()


def test_a_link_in_place_of_the_folder_or_of_a_lock_is_refused(tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to("elsewhere")
    with pytest.raises(UserError, match="link: the folder"), acquire_gpus(1, gpus=["0"], folder=tmp_path / "link"):
        pass
    (tmp_path / "elsewhere" / "gpu-0").symlink_to(tmp_path / "target")
    refused = pytest.raises(UserError, match="gpu-0: cannot be opened")
    with refused, acquire_gpus(1, gpus=["0"], folder=tmp_path / "elsewhere"):
        pass
    assert not (tmp_path / "target").exists()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="a descriptor is looked up there")
def test_on_nfs_two_jobs_never_hold_one_gpu_at_once_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys.modules[__name__], "WORKER", AS_NFS + WORKER)
    events = work(tmp_path / "locks", tmp_path / "journal", [{"count": 1, "gpus": ["0", "1"]}] * 4, times=4)
    assert len(events) == 2 * 4 * 4
    assert_alone(events)


def test_without_locks_jobs_share_a_gpu_and_are_warned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def refuse(*_) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", refuse)
    with (
        acquire_gpus(1, gpus=["0"], folder=tmp_path / "locks"),
        acquire_gpus(1, gpus=["0"], folder=tmp_path / "locks") as names,
    ):
        assert names == ["0"]
    assert [message for message in caplog.messages if "no locks, so jobs may share a GPU" in message] == caplog.messages


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user for a while")
def test_lock_files_of_an_earlier_version_which_only_their_owner_can_write_are_used(machine: Machine):
    with tempfile.TemporaryDirectory(dir="/tmp") as parent:
        Path(parent).chmod(0o755)
        machine.folder = Path(parent) / "locks"
        machine.folder.mkdir()
        machine.folder.chmod(0o1777)
        for name in ("gpu-0", "gpu-0.queue"):
            (machine.folder / name).touch(0o644)
        assert machine.job(gpus=["0"], user=65534).gpus() == ["0"]
        assert machine.job(gpus=["0"], user=65533).waits()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user for a while")
def test_users_share_the_locks(machine: Machine):
    with tempfile.TemporaryDirectory(dir="/tmp") as parent:
        Path(parent).chmod(0o755)
        machine.folder = Path(parent) / "locks"
        old = os.umask(0o077)
        try:
            mine = machine.job(gpus=["0", "1"])
            assert mine.gpus() == ["0"]
        finally:
            os.umask(old)
        assert stat.S_IMODE(machine.folder.stat().st_mode) == 0o1777
        other = machine.job(gpus=["0", "1"], user=65534)
        assert other.gpus() == ["1"]
        third = machine.job(gpus=["0", "1"], user=65533)
        assert third.waits()
        mine.leave()
        assert third.gpus() == ["0"]
