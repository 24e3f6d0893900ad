"""A private Slurm on this machine: its daemons listen on the loopback only and need neither root nor /etc."""

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

from tests.helpers.waiting import TIMEOUT, wait_for

NODES = ("node1", "node2")
# More than the machine has: most jobs of the tests sleep.
CPUS, MEMORY_MB = 8, 12000
# Slurm wants existing devices; no job computes on them.
GPUS = {"node1": ("/dev/null", "/dev/zero"), "node2": ("/dev/full", "/dev/random")}
# The unchanged profile, with shorter waits.
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
# By process group: containers seldom provide cgroups.
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
# The controller remembers a finished job for an hour.
MinJobAge=3600
JobRequeue=1
# Without cgroups memory is sampled, and a job above its limit is killed.
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
GresTypes=gpu
{nodes}
PartitionName=main Nodes={names} Default=YES MaxTime=UNLIMITED DefaultTime=10 State=UP
"""


def missing_programs() -> list[str]:
    """Return the programs of Slurm that are not installed."""
    return [name for name in (*DAEMONS, *CLIENTS) if shutil.which(name, path=_search_path()) is None]


@dataclass(frozen=True)
class Cluster:
    """A running Slurm of two nodes."""

    clients: Path
    """Folder of the commands, which talk to this cluster only."""

    @property
    def logs(self) -> Path:
        """Folder of the daemons' logs."""
        return self.clients.parent

    @property
    def prefix(self) -> tuple[str, ...]:
        """A command that runs another one as on the login node."""
        return ("env", f"PATH={self.clients}{os.pathsep}{os.environ['PATH']}")

    def run(self, command: str, *arguments: str) -> str:
        done = subprocess.run([self.clients / command, *arguments], capture_output=True, text=True, timeout=TIMEOUT)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextmanager
    def delay(self, command: str) -> Iterator[Path]:
        """Make a command take five seconds; the returned file appears once it has been called."""
        client, was_called = self.clients / command, self.clients / f"{command} was called"
        before = client.read_text()
        self._replace(client, before.replace("\n", f"\ntouch '{was_called}'; sleep 5\n", 1))
        try:
            yield was_called
        finally:
            self._replace(client, before)

    @staticmethod
    def _replace(client: Path, text: str) -> None:
        """Replace the file instead of rewriting it: a shell may be reading it."""
        new = client.with_suffix(".new")
        new.write_text(text)
        new.chmod(0o755)
        new.replace(client)

    def jobs(self, states: str = "PENDING,RUNNING,COMPLETING") -> dict[str, str]:
        """Return the jobs in these states: comment (`rule_train_wildcards_…`) by job ID."""
        lines = self.run("squeue", "--noheader", f"--states={states}", "--format=%i|%k").splitlines()
        return dict(line.split("|", 1) for line in lines)

    def details(self, job: str) -> dict[str, str]:
        """Return what the controller reports for a job."""
        fields = self.run("scontrol", "--oneliner", "show", "job", job).split()
        return dict(field.partition("=")[::2] for field in fields)


@contextmanager
def start_slurm() -> Iterator[Cluster]:
    """Start a Slurm; at the end cancel its jobs and stop it."""
    # Not pytest's folder: the path of a socket is limited to 107 characters.
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
            cluster.run("scancel", f"--user={getpass.getuser()}")
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
    # Snakemake's plugin removes SLURM_CONF from the environment of a job step, so each command sets it.
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
    listed = subprocess.run([cluster.clients / "sinfo", "-h", "-N", "-t", "idle", "-o", "%N"], capture_output=True)
    return len(listed.stdout.split())


def wait_for_slurm(condition: Callable[[], object], logs: Path) -> None:
    """Wait until a condition holds; after the timeout fail with the ends of the logs in a folder."""

    def log_tails() -> str:
        return "\n".join(f"{log.name}: {log.read_text()[-1500:]}" for log in sorted(logs.glob("*.log")))

    wait_for(condition, log_tails, interval=0.2)


needs_slurm = pytest.mark.skipif(
    bool(missing_programs()), reason=f"Slurm is not installed ({INSTALL}): {', '.join(missing_programs())}"
)
