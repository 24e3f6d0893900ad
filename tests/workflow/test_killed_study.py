"""A study that is killed many times, in every way, ends with the same bits as an undisturbed one."""

import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.helpers.checkout import Checkout, assert_same_results, restore_sigint
from tests.helpers.stress import CONFIG, StressStudy, create_stress_study
from tests.helpers.waiting import TIMEOUT

pytestmark = pytest.mark.slow


def job_processes(snakemake: psutil.Process) -> list[psutil.Process]:
    """Return the processes that run the script of a job."""
    processes = []
    with suppress(psutil.NoSuchProcess):
        for process in snakemake.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if process.name().startswith("python") and any(
                    ".snakemake/scripts" in part for part in process.cmdline()
                ):
                    processes.append(process)
    return processes


def processes_in(checkout: Checkout) -> list[psutil.Process]:
    """Return the processes whose working directory is a checkout, whoever started them."""
    processes = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.cwd() == str(checkout.path) and process.status() != psutil.STATUS_ZOMBIE:
                processes.append(process)
    return processes


def send_signal(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def disturb(checkout: Checkout, arguments: list[str], rng: random.Random, kills: int) -> dict[str, int]:
    """Run a study, and kill it `kills` times at random moments; return how often each kind of process was killed."""
    counts = dict.fromkeys(("a job", "Snakemake", "all", "Ctrl-C"), 0)
    command = [sys.executable, "-m", "snakemake", *arguments]
    log = (checkout.path / "stress.log").open("a")
    while sum(counts.values()) < kills:
        # Left by a killed Snakemake. `--unlock` does the same, but takes the time to start Snakemake.
        for lock in (checkout.path / ".snakemake" / "locks").glob("*"):
            lock.unlink()
        with subprocess.Popen(
            command, cwd=checkout.path, stdout=log, stderr=log, start_new_session=True, preexec_fn=restore_sigint
        ) as process:
            snakemake = psutil.Process(process.pid)
            while process.poll() is None and sum(counts.values()) < kills:
                time.sleep(rng.uniform(0.2, 3.0))
                target = rng.choice((*["a job"] * 5, "Snakemake", "all", "Ctrl-C"))
                if process.poll() is not None:
                    break
                if target == "a job":
                    if running := job_processes(snakemake):
                        send_signal([rng.choice(running)], signal.SIGKILL)
                        counts[target] += 1
                    continue
                counts[target] += 1
                if target == "Snakemake":  # its jobs continue without it, and still run when the next one starts
                    send_signal([snakemake], signal.SIGKILL)
                elif target == "all":
                    send_signal([snakemake, *processes_in(checkout)], signal.SIGKILL)
                else:
                    send_signal([snakemake, *processes_in(checkout)], signal.SIGINT)
                    process.wait(TIMEOUT)
        if process.returncode == 0:
            shutil.rmtree(checkout.path / "results")  # it finished before the last kill
    log.close()
    return counts


def test_study_killed_at_random_moments_ends_with_identical_bits(
    stress: StressStudy, tmp_path: Path, pytestconfig: pytest.Config
):
    kills = pytestconfig.getoption("--kills")
    killed = create_stress_study(tmp_path / "killed")
    arguments = [*killed.targets, "--cores", "2", "--configfile", CONFIG]
    counts = disturb(killed.checkout, arguments, random.Random(0), kills)
    print(f"killed: {counts}")  # noqa: T201
    killed.checkout.snakemake("--unlock", *arguments)
    resumed = killed.checkout.snakemake(*arguments)
    assert resumed.returncode == 0, resumed.stdout[-4000:]

    assert assert_same_results(stress.results, killed.results) > 40
    assert sum(counts.values()) >= kills
    assert not processes_in(killed.checkout)
