"""A study that is killed again and again, in every way, ends as one that nothing disturbed: bit for bit."""

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


def jobs(snakemake: psutil.Process) -> list[psutil.Process]:
    """The processes that do the work of a job."""
    found = []
    with suppress(psutil.NoSuchProcess):
        for process in snakemake.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if process.name().startswith("python") and any(
                    ".snakemake/scripts" in part for part in process.cmdline()
                ):
                    found.append(process)
    return found


def all_of(checkout: Checkout) -> list[psutil.Process]:
    """The processes that work in a checkout, whoever started them."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.cwd() == str(checkout.path) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def kill(processes: list[psutil.Process], which: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(which)


def disturb(checkout: Checkout, arguments: list[str], rng: random.Random, kills: int) -> dict[str, int]:
    """Run a study and kill `kills` times what runs at random moments; return how often what was killed."""
    done = dict.fromkeys(("a job", "Snakemake", "all", "Ctrl-C"), 0)
    command = [sys.executable, "-m", "snakemake", *arguments]
    log = (checkout.path / "stress.log").open("a")
    while sum(done.values()) < kills:
        # What a killed Snakemake left: `--unlock` does no more, but starts Snakemake for it.
        for left in (checkout.path / ".snakemake" / "locks").glob("*"):
            left.unlink()
        with subprocess.Popen(
            command, cwd=checkout.path, stdout=log, stderr=log, start_new_session=True, preexec_fn=restore_sigint
        ) as process:
            snakemake = psutil.Process(process.pid)
            while process.poll() is None and sum(done.values()) < kills:
                time.sleep(rng.uniform(0.2, 3.0))
                what = rng.choice((*["a job"] * 5, "Snakemake", "all", "Ctrl-C"))
                if process.poll() is not None:
                    break
                if what == "a job":
                    if running := jobs(snakemake):
                        kill([rng.choice(running)], signal.SIGKILL)
                        done[what] += 1
                    continue
                done[what] += 1
                if what == "Snakemake":  # its jobs go on without it, and are still at work when the next one starts
                    kill([snakemake], signal.SIGKILL)
                elif what == "all":
                    kill([snakemake, *all_of(checkout)], signal.SIGKILL)
                else:
                    kill([snakemake, *all_of(checkout)], signal.SIGINT)
                    process.wait(TIMEOUT)
        if process.returncode == 0:
            shutil.rmtree(checkout.path / "results")  # it was faster than the kills
    log.close()
    return done


def test_a_study_that_is_killed_at_random_moments_ends_with_the_same_bits(
    stress: StressStudy, tmp_path: Path, pytestconfig: pytest.Config
):
    kills = pytestconfig.getoption("--kills")
    killed = create_stress_study(tmp_path / "killed")
    arguments = [*killed.targets, "--cores", "2", "--configfile", CONFIG]
    done = disturb(killed.checkout, arguments, random.Random(0), kills)
    print(f"killed: {done}")  # noqa: T201
    killed.checkout.snakemake("--unlock", *arguments)
    ended = killed.checkout.snakemake(*arguments)
    assert ended.returncode == 0, ended.stdout[-4000:]

    assert assert_same_results(stress.results, killed.results) > 40
    assert sum(done.values()) >= kills
    assert not all_of(killed.checkout)
