"""GPU allocation, with real processes and devices that do not exist."""

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

# Prints the GPUs that it acquired, and holds them until it reads a line.
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
# Acquires GPUs repeatedly, and logs when it acquires and releases them.
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
    """A process that acquires GPUs."""

    def __init__(self, environment: dict[str, str], arguments: dict):
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-c", HOLDER, json.dumps(arguments)],
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,  # `select` does not see a second line in a buffer
        )

    def line(self) -> str:
        assert select.select([self.process.stdout], [], [], TIMEOUT)[0], "the process prints nothing"
        return self.process.stdout.readline().decode()

    def gpus(self) -> list[str]:
        """Wait until it has GPUs, and return their names."""
        while (line := self.line()).startswith("waiting"):
            pass
        names, environment = json.loads(line)
        assert environment == ",".join(names)
        return names

    def waits(self) -> bool:
        return self.line().startswith("waiting")

    def has_gpus(self) -> bool:
        return bool(select.select([self.process.stdout], [], [], 0.5)[0])

    def release(self) -> None:
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


def run_workers(folder: Path, journal: Path, jobs: list[dict], times: int) -> list[tuple[str, str, str]]:
    """Let each process acquire GPUs `times` times; return the events in order."""
    with ExitStack() as stack:
        processes = []
        for job in jobs:
            arguments = json.dumps({"folder": str(folder), **job})
            process = subprocess.Popen([sys.executable, "-c", WORKER, arguments, str(times), str(journal)])
            processes.append(stack.enter_context(process))
            stack.callback(process.kill)
        assert [process.wait(TIMEOUT) for process in processes] == [0] * len(jobs)
    return [tuple(line.split()) for line in journal.read_text().splitlines()]


def assert_exclusive(events: list[tuple[str, str, str]]) -> None:
    holders: dict[str, str] = {}
    for event, gpu, process in events:
        if event == "enter":
            assert gpu not in holders, f"{process} acquired {gpu} while {holders[gpu]} held it"
            holders[gpu] = process
        else:
            assert holders.pop(gpu) == process
    assert not holders


def test_a_job_without_gpus_sees_none(monkeypatch: pytest.MonkeyPatch):
    for given in ("0,1", None):
        with visible(monkeypatch, given):
            with allocate_gpus(0) as names:
                assert (names, os.environ["CUDA_VISIBLE_DEVICES"]) == ([], "")
            assert os.environ.get("CUDA_VISIBLE_DEVICES") == given


def test_a_job_on_several_nodes_sees_the_gpus_of_slurm(monkeypatch: pytest.MonkeyPatch):
    with visible(monkeypatch, "2,3"), allocate_gpus(0, managed_by_slurm=True):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "2,3"


def test_two_jobs_never_hold_a_gpu_at_once(tmp_path: Path):
    events = run_workers(tmp_path / "locks", tmp_path / "journal", [{"count": 1, "gpus": ["0", "GPU-a"]}] * 5, times=6)
    assert len(events) == 2 * 5 * 6
    assert_exclusive(events)
    assert {gpu for _, gpu, _ in events} == {"0", "GPU-a"}


def test_jobs_with_two_gpus_each_do_not_deadlock(tmp_path: Path):
    jobs = [{"count": 2, "gpus": gpus} for gpus in (["0", "1"], ["1", "0"], ["2", "1", "0"])]
    events = run_workers(tmp_path / "locks", tmp_path / "journal", jobs, times=6)
    assert len(events) == 2 * 2 * 3 * 6
    assert_exclusive(events)


def test_jobs_per_gpu_jobs_share_a_gpu(machine: Machine):
    first, second = (machine.job(jobs_per_gpu=2, gpus=["0"]) for _ in range(2))
    assert first.gpus() == second.gpus() == ["0"]
    third = machine.job(jobs_per_gpu=2, gpus=["0"])
    assert third.waits()
    assert not third.has_gpus()
    second.release()
    assert third.gpus() == ["0"]


def test_jobs_that_may_share_a_gpu_prefer_an_empty_one(machine: Machine):
    assert machine.job(jobs_per_gpu=2, gpus=["0", "1"]).gpus() == ["0"]
    assert machine.job(jobs_per_gpu=2, gpus=["0", "1"]).gpus() == ["1"]
    assert machine.job(jobs_per_gpu=2, gpus=["0", "1"]).gpus() == ["0"]


@pytest.mark.parametrize("alone", [{"jobs_per_gpu": 2, "exclusive": True}, {"jobs_per_gpu": 1}])
def test_an_exclusive_job_shares_its_gpu_with_no_other(machine: Machine, alone: dict):
    sharing = machine.job(jobs_per_gpu=2, gpus=["0"])
    sharing.gpus()
    timing = machine.job(gpus=["0"], **alone)
    assert timing.waits()
    assert not timing.has_gpus()
    sharing.release()
    assert timing.gpus() == ["0"]
    late = machine.job(jobs_per_gpu=2, gpus=["0"])
    assert late.waits()
    assert not late.has_gpus()
    timing.release()
    assert late.gpus() == ["0"]


def test_a_killed_job_releases_its_gpus(machine: Machine):
    killed = machine.job(count=2, gpus=["0", "1"])
    killed.gpus()
    after = machine.job(count=2, gpus=["0", "1"])
    assert after.waits()
    killed.process.kill()
    assert after.gpus() == ["0", "1"]


def test_a_killed_waiting_job_does_not_block_the_next(machine: Machine):
    holder = machine.job(gpus=["0"])
    holder.gpus()
    killed = machine.job(gpus=["0"])
    assert killed.waits()
    after = machine.job(gpus=["0"])
    assert after.waits()
    killed.process.kill()
    holder.release()
    assert after.gpus() == ["0"]


def test_a_forked_process_holds_no_gpu(tmp_path: Path):
    with acquire_gpus(1, gpus=["0"], folder=tmp_path / "locks"):
        child = os.fork()
        if child == 0:
            signal.pause()
    try:
        run_workers(tmp_path / "locks", tmp_path / "journal", [{"count": 1, "gpus": ["0"]}], times=1)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_later_small_jobs_do_not_overtake_one_that_needs_all_gpus(machine: Machine):
    small = [machine.job(gpus=["0", "1"]) for _ in range(2)]
    assert sorted(name for job in small for name in job.gpus()) == ["0", "1"]
    large = machine.job(count=2, gpus=["0", "1"])
    assert large.waits()
    late = [machine.job(gpus=["0", "1"]) for _ in range(2)]
    assert all(job.waits() for job in late)
    small[0].release()
    assert not any(job.has_gpus() for job in (large, *late))
    small[1].release()
    assert large.gpus() == ["0", "1"]
    assert not any(job.has_gpus() for job in late)
    large.release()
    assert sorted(name for job in late for name in job.gpus()) == ["0", "1"]


def test_a_job_that_waits_for_a_gpu_does_not_block_another_gpu(machine: Machine):
    machine.job(gpus=["0"]).gpus()
    assert machine.job(gpus=["0"]).waits()
    assert machine.job(gpus=["1"]).gpus() == ["1"]


def test_visible_gpus_are_acquired_by_their_names(machine: Machine):
    outside = {"CUDA_VISIBLE_DEVICES": "3,5,7"}
    machine.job(gpus=["5"]).gpus()
    assert machine.job(count=2, environment=outside).gpus() == ["3", "7"]


@pytest.mark.parametrize("before", ["4,6", None])
def test_the_environment_is_restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str | None):
    with visible(monkeypatch, before):
        with pytest.raises(RuntimeError, match="in the job"), acquire_gpus(1, gpus=["6"], folder=tmp_path / "locks"):
            assert os.environ["CUDA_VISIBLE_DEVICES"] == "6"
            raise RuntimeError("in the job")
        assert os.environ.get("CUDA_VISIBLE_DEVICES") == before
        with acquire_gpus(1, gpus=["6"], folder=tmp_path / "locks") as names:  # it was released
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
def test_visible_gpus_follow_cuda_visible_devices(monkeypatch: pytest.MonkeyPatch, given: str, names: list[str]):
    with visible(monkeypatch, given):
        assert visible_gpus() == names


def test_without_the_variable_all_gpus_are_visible(monkeypatch: pytest.MonkeyPatch):
    import torch

    with visible(monkeypatch, None):
        initialised = torch.cuda.is_initialized()
        assert visible_gpus() == [str(index) for index in range(torch.cuda.device_count())]
        assert torch.cuda.is_initialized() == initialised


@pytest.mark.parametrize(
    ("given", "message"), [("5", r"needs 2 GPUs, but 1 .*\(CUDA_VISIBLE_DEVICES=5\)"), ("", "none")]
)
def test_too_few_gpus_are_an_error_that_names_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, message: str
):
    pattern = rf"^resources\.devices: .*{message}"
    with (
        visible(monkeypatch, given),
        pytest.raises(UserError, match=pattern),
        acquire_gpus(2, folder=tmp_path / "locks"),
    ):
        pass


def test_names_of_mig_devices_may_contain_slashes(machine: Machine):
    names = ["MIG-GPU-5d5ba0d6/1/0", "MIG-GPU-5d5ba0d6/2/0"]
    assert machine.job(gpus=names).gpus() == names[:1]
    assert machine.job(gpus=names).gpus() == names[1:]


def test_each_slurm_job_has_its_own_locks(machine: Machine, tmp_path: Path):
    jobs = [
        machine.job(folder=None, gpus=["0"], environment={"TMPDIR": str(tmp_path), "SLURM_JOB_ID": number})
        for number in ("7", "8")
    ]
    assert [job.gpus() for job in jobs] == [["0"], ["0"]]
    assert machine.job(folder=None, gpus=["0"], environment={"TMPDIR": str(tmp_path), "SLURM_JOB_ID": "7"}).waits()


def test_a_link_instead_of_the_folder_or_a_lock_is_refused(tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to("elsewhere")
    with pytest.raises(UserError, match="link: the folder"), acquire_gpus(1, gpus=["0"], folder=tmp_path / "link"):
        pass
    (tmp_path / "elsewhere" / "gpu-0").symlink_to(tmp_path / "target")
    refused = pytest.raises(UserError, match="gpu-0: cannot be opened")
    with refused, acquire_gpus(1, gpus=["0"], folder=tmp_path / "elsewhere"):
        pass
    assert not (tmp_path / "target").exists()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="a descriptor is inspected there")
def test_two_jobs_never_hold_a_gpu_at_once_on_nfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys.modules[__name__], "WORKER", AS_NFS + WORKER)
    events = run_workers(tmp_path / "locks", tmp_path / "journal", [{"count": 1, "gpus": ["0", "1"]}] * 4, times=4)
    assert len(events) == 2 * 4 * 4
    assert_exclusive(events)


def test_without_file_locks_jobs_share_a_gpu_with_a_warning(
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


@pytest.mark.skipif(os.getuid() != 0, reason="only root can switch users")
def test_lock_files_that_only_their_owner_can_write_are_used(machine: Machine):
    with tempfile.TemporaryDirectory(dir="/tmp") as parent:
        Path(parent).chmod(0o755)
        machine.folder = Path(parent) / "locks"
        machine.folder.mkdir()
        machine.folder.chmod(0o1777)
        for name in ("gpu-0", "gpu-0.queue"):
            (machine.folder / name).touch(0o644)
        assert machine.job(gpus=["0"], user=65534).gpus() == ["0"]
        assert machine.job(gpus=["0"], user=65533).waits()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can switch users")
def test_users_share_the_locks(machine: Machine):
    with tempfile.TemporaryDirectory(dir="/tmp") as parent:
        Path(parent).chmod(0o755)
        machine.folder = Path(parent) / "locks"
        old = os.umask(0o077)
        try:
            first = machine.job(gpus=["0", "1"])
            assert first.gpus() == ["0"]
        finally:
            os.umask(old)
        assert stat.S_IMODE(machine.folder.stat().st_mode) == 0o1777
        other = machine.job(gpus=["0", "1"], user=65534)
        assert other.gpus() == ["1"]
        third = machine.job(gpus=["0", "1"], user=65533)
        assert third.waits()
        first.release()
        assert third.gpus() == ["0"]
