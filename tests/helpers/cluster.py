"""A Slurm of the tests' own on this machine: controller and nodes that only the loopback reaches, no root, no /etc."""

import getpass
import os
import secrets
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.helpers.waiting import SECONDS, wait_for

NODES = ("node1", "node2")
# More than the machine has; jobs that sleep need none.
CPUS, MEMORY_MB = 8, 12000
# Slurm wants to see devices; nobody computes on these.
GPUS = {"node1": ("/dev/null", "/dev/zero"), "node2": ("/dev/full", "/dev/random")}
# The profile as it is, but impatient.
PROFILE = (
    *("--workflow-profile", "profiles/slurm"),
    *("--slurm-init-seconds-before-status-checks", "1"),
    *("--latency-wait", "5"),
)
DAEMONS = ("munged", "slurmctld", "slurmd")
CLIENTS = ("sbatch", "scancel", "scontrol", "sinfo", "squeue", "srun")
INSTALL = "apt-get install slurmctld slurmd slurm-client munge"

CONFIG = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
CredType=cred/munge
SlurmctldPort={ports[0]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
# By process group and without cgroups, which containers seldom give.
ProctrackType=proctrack/pgid
TaskPlugin=task/none
MpiDefault=none
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
PlugStackConfig=/dev/null
SwitchType=switch/none
ReturnToService=2
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_min_interval=100000,batch_sched_delay=1,bf_interval=5
KillWait=5
InactiveLimit=0
MessageTimeout=60
SlurmctldTimeout=120
SlurmdTimeout=120
# For an hour the controller knows what became of a job.
MinJobAge=3600
JobRequeue=1
# Without cgroups memory is looked at now and then, and a job that took too much is killed.
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
GresTypes=gpu
{nodes}
PartitionName=main Nodes={names} Default=YES MaxTime=UNLIMITED DefaultTime=10 State=UP
"""


def missing() -> list[str]:
    """The programs of Slurm that this machine lacks."""
    return [name for name in (*DAEMONS, *CLIENTS) if shutil.which(name, path=_search_path()) is None]


@dataclass(frozen=True)
class Cluster:
    """A running Slurm of two nodes."""

    clients: Path
    """Folder of the commands, which find this cluster and no other one."""

    @property
    def logs(self) -> Path:
        """Folder of the daemons' logs."""
        return self.clients.parent

    @property
    def prefix(self) -> tuple[str, ...]:
        """A command that runs another one as if it were on the login node."""
        return ("env", f"PATH={self.clients}{os.pathsep}{os.environ['PATH']}")

    def ask(self, command: str, *arguments: str) -> str:
        done = subprocess.run([self.clients / command, *arguments], capture_output=True, text=True, timeout=SECONDS)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextmanager
    def slow(self, command: str) -> Iterator[Path]:
        """Have a command take five seconds from now on; the file is there when one is at it."""
        client, at_work = self.clients / command, self.clients / f"{command} at work"
        before = client.read_text()
        self._replace(client, before.replace("\n", f"\ntouch '{at_work}'; sleep 5\n", 1))
        try:
            yield at_work
        finally:
            self._replace(client, before)

    @staticmethod
    def _replace(client: Path, text: str) -> None:
        """Not in place: a shell may be reading it."""
        new = client.with_suffix(".new")
        new.write_text(text)
        new.chmod(0o755)
        new.replace(client)

    def jobs(self, states: str = "PENDING,RUNNING,COMPLETING") -> dict[str, str]:
        """The jobs in these states: what each does (`rule_train_wildcards_…`), by its number."""
        lines = self.ask("squeue", "--noheader", f"--states={states}", "--format=%i|%k").splitlines()
        return dict(line.split("|", 1) for line in lines)

    def about(self, job: str) -> dict[str, str]:
        """What the controller knows of a job."""
        fields = self.ask("scontrol", "--oneliner", "show", "job", job).split()
        return dict(field.partition("=")[::2] for field in fields)


@contextmanager
def slurm() -> Iterator[Cluster]:
    """Start a Slurm; at the end stop it and whatever runs in it."""
    # Not in pytest's folder: the path of a socket has at most 107 characters.
    with TemporaryDirectory(prefix="slurm-") as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)
        _configure(folder)
        environment = {**os.environ, "PATH": _search_path(), "SLURM_CONF": str(folder / "slurm.conf")}
        daemons = [
            [
                "munged", "--foreground", f"--key-file={folder}/munge.key", f"--socket={folder}/munge.sock",
                f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log", f"--seed-file={folder}/seed",
            ],
            ["slurmctld", "-D", "-c", "-f", f"{folder}/slurm.conf"],
            *(["slurmd", "-D", "-N", node, "-f", f"{folder}/slurm.conf"] for node in NODES),
        ]  # fmt: skip
        started: list[subprocess.Popen] = []
        try:
            for daemon in daemons:
                quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
                started.append(subprocess.Popen(daemon, env=environment, start_new_session=True, **quiet))
                if daemon[0] == "munged":
                    wait_for_slurm((folder / "munge.sock").exists, folder)
            cluster = Cluster(folder / "bin")
            wait_for_slurm(lambda: _idle_nodes(cluster) == len(NODES), folder)
            yield cluster
            cluster.ask("scancel", f"--user={getpass.getuser()}")
            wait_for_slurm(lambda: not cluster.jobs(), folder)
        finally:
            for process in reversed(started):
                process.terminate()
            for process in started:
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def _search_path() -> str:
    return os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])


def _configure(folder: Path) -> None:
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    host = socket.gethostname().partition(".")[0]
    ports = _free_ports(1 + len(NODES))
    nodes = "\n".join(
        f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={CPUS} RealMemory={MEMORY_MB} "
        f"Gres=gpu:{len(GPUS[node])} State=UNKNOWN"
        for node, port in zip(NODES, ports[1:], strict=True)
    )
    (folder / "slurm.conf").write_text(
        CONFIG.format(host=host, user=getpass.getuser(), folder=folder, ports=ports, nodes=nodes, names=",".join(NODES))
    )
    (folder / "gres.conf").write_text(
        "".join(
            f"NodeName={node} Name=gpu Flags=nvidia_gpu_env File={device}\n"
            for node, devices in GPUS.items()
            for device in devices
        )
    )
    for name in ("state", "bin", *(f"spool.{node}" for node in NODES)):
        (folder / name).mkdir()
    # The plugin takes SLURM_CONF from the environment of a job step, so each command brings it.
    for name in CLIENTS:
        command = folder / "bin" / name
        command.write_text(
            f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {shutil.which(name, path=_search_path())} "$@"\n'
        )
        command.chmod(0o755)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _idle_nodes(cluster: Cluster) -> int:
    asked = subprocess.run([cluster.clients / "sinfo", "-h", "-N", "-t", "idle", "-o", "%N"], capture_output=True)
    return len(asked.stdout.split())


def wait_for_slurm(condition: Callable[[], object], logs: Path) -> None:
    """Wait until a condition holds; if it never does, say what the last lines of the logs in a folder are."""

    def told() -> str:
        return "\n".join(f"{log.name}: {log.read_text()[-1500:]}" for log in sorted(logs.glob("*.log")))

    wait_for(condition, told, every=0.2)


needs_slurm = pytest.mark.skipif(bool(missing()), reason=f"Slurm is not installed ({INSTALL}): {', '.join(missing())}")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with slurm() as running:
        yield running
