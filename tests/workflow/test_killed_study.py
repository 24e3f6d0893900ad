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

from batchscape.study import Study
from tests.workflow.conftest import Checkout, assert_the_same, heed_ctrl_c

pytestmark = pytest.mark.slow

# Every kind of job, each of a few seconds; the network has all that a resumed run must take up again.
STUDY = """
name: stress
grid: {batch_sizes: [64, 256], learning_rates: [0.05], seeds: [0]}
model: {name: "stress_net:Net"}
training: {max_epochs: 30, patience: 30, momentum: 0.9, augment_flip: true, snapshots: [1, 10, 25]}
comparison: {fixed_lr: 0.05, high_lr: 0.05}
arms: {linear: {enabled: false}, sqrt: {enabled: false}}
tuning: {trials: 3, coarse_trials: 2, epochs: 10, seeds: [5, 6]}
sharpness: {checkpoints: [best], subspace_dimension: 5, iterations: 2, random_starts: 1, trace_products: 4}
interpolation: {points: 5}
landscape: {points: [8, 6], points_per_job: 24}
trajectory: {enabled: true, points: [5, 4]}
gradient_alignment: {checkpoints: [best], largest_batch: 16, examples: 64}
device_timing: {enabled: false}
"""
# Keeps a state after every epoch, so that there is one to be killed in.
NETWORK = """
from torch import nn
from batchscape.training import recorder

recorder.SECONDS_BETWEEN_STATES = 0.0

class Net(nn.Sequential):
    def __init__(self, outputs):
        super().__init__(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.1), nn.Flatten(), nn.Linear(144, outputs)
        )
"""


def made(folder: Path) -> tuple[Checkout, list[str]]:
    """A checkout with the study, and Snakemake's arguments to make all its tables."""
    checkout = Checkout.at(folder)
    (folder / "stress.yaml").write_text(STUDY)
    (folder / "stress_net.py").write_text(NETWORK)
    study = Study.from_file(folder / "stress.yaml")
    tables = ["tables/runs", *(f"tables/{name}" for name in study.tables), "tables/landscape", "tables/trajectory"]
    return checkout, ["--cores", "2", *map(study.csv, tables), "--configfile", "stress.yaml"]


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
        if any((checkout.path / ".snakemake" / "locks").glob("*")):  # a killed Snakemake left them
            subprocess.run([*command, "--unlock"], cwd=checkout.path, stdout=log, stderr=log, check=True)
        with subprocess.Popen(
            command, cwd=checkout.path, stdout=log, stderr=log, start_new_session=True, preexec_fn=heed_ctrl_c
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
                    process.wait(60)
        if process.returncode == 0:
            shutil.rmtree(checkout.path / "results")  # it was faster than the kills
    log.close()
    return done


def test_a_study_that_is_killed_at_random_moments_ends_with_the_same_bits(tmp_path: Path, pytestconfig: pytest.Config):
    kills = pytestconfig.getoption("--kills")
    undisturbed, arguments = made(tmp_path / "undisturbed")
    ended = undisturbed.snakemake(*arguments)
    assert ended.returncode == 0, ended.stdout[-4000:]

    killed, arguments = made(tmp_path / "killed")
    done = disturb(killed, arguments, random.Random(0), kills)
    print(f"killed: {done}")  # noqa: T201
    killed.snakemake("--unlock", *arguments)
    ended = killed.snakemake(*arguments)
    assert ended.returncode == 0, ended.stdout[-4000:]

    one, two = (checkout.path / "results" / "stress" for checkout in (undisturbed, killed))
    assert assert_the_same(one, two) > 50
    assert sum(done.values()) >= kills
    assert not all_of(killed)
