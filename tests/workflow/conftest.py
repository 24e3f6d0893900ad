"""Studies and clusters that several files of tests share."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.helpers.checkout import Checkout
from tests.helpers.cluster import Cluster, start_slurm
from tests.helpers.stress import CONFIG, StressStudy, create_stress_study


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A test file's copy of the finished smoke study, which the first test process runs for all.

    A test that edits the copy restores what other tests of its file use.
    """
    copy = tmp_path_factory.mktemp("finished") / "checkout"
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    with (shared / "finished.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        original, is_complete = shared / "finished" / "checkout", shared / "finished" / "complete"
        if not is_complete.exists():
            shutil.rmtree(original, ignore_errors=True)  # left by a process in which it failed
            Checkout.at(original).run("config/smoke.yaml")
            is_complete.touch()
    shutil.copytree(original, copy, symlinks=True)
    return Checkout(copy)


@pytest.fixture(scope="session")
def stress(tmp_path_factory: pytest.TempPathFactory) -> StressStudy:
    """The stress study, run locally without disturbance; a test that edits it restores everything."""
    study = create_stress_study(tmp_path_factory.mktemp("undisturbed") / "checkout")
    done = study.checkout.snakemake(*study.targets, "--cores", "2", "--configfile", CONFIG)
    assert done.returncode == 0, done.stdout[-4000:]
    return replace(study, output=done.stdout)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with start_slurm() as running:
        yield running
