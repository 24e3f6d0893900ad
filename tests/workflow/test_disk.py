"""A full disk, a read-only results folder, Ctrl-C: one line reports the problem, and the same command then resumes."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from batchscape.io.frames import read_frame
from tests.helpers.checkout import Checkout
from tests.helpers.waiting import TIMEOUT, wait_for

pytestmark = pytest.mark.slow

CONFIG = """
name: tiny
grid: {batch_sizes: [256], learning_rates: [0.05], seeds: [0]}
model: {channels: [4], dense: [8]}
training: {budget: {epochs: 25}, patience: 25}
comparison: {fixed_learning_rate: 0.05, high_learning_rate: 0.05}
sharpness: {enabled: false}
interpolation: {enabled: false}
gradient_alignment: {enabled: false}
landscape: {points: [3, 3]}
tuning: {hyperparameters: {learning_rate: [0.05, 0.5]}, budget: 7, startup_trials: 5, trial_budget: {epochs: 25},
  seeds: [5], finalists: {settings: 1, seeds: [6]}}
confirmation: {enabled: false}
"""
RUN, SEARCH = "bs256-lr0.05-seed0", "analysis/lr_search/bs256.csv"
TARGETS = (f"runs/{RUN}/run.json", SEARCH, f"analysis/landscape/{RUN}/directions0-part1of1.csv")
COMMAND = ("--cores", "2", *(f"results/tiny/{target}" for target in TARGETS), "--configfile", "config/tiny.yaml")
DISK_FULL_LINE = r"^results/tiny/logs/\S+\.log: the disk is full .*; free space, then rerun the same command to resume$"


def create_checkout(path: Path) -> Checkout:
    checkout = Checkout.at(path)
    (path / "config" / "tiny.yaml").write_text(CONFIG)
    return checkout


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    checkout = create_checkout(tmp_path_factory.mktemp("undisturbed") / "checkout")
    assert checkout.snakemake(*COMMAND).returncode == 0
    return read_contents(checkout.path / "results" / "tiny")


def read_contents(folder: Path) -> dict[str, object]:
    """Return all numbers of a study except times: tables as text, weights and update norms as bytes."""
    tables = {path: read_frame(path) for path in folder.rglob("*.csv") if "manifest" not in path.name}
    contents = {
        path: table[[name for name in table if "seconds" not in name]].to_csv() for path, table in tables.items()
    } | {path: path.read_bytes() for path in folder.rglob("*") if path.suffix in (".safetensors", ".npy")}
    return {str(path.relative_to(folder)): value for path, value in contents.items()}


def assert_same(folder: Path, undisturbed: dict[str, object]) -> None:
    contents = read_contents(folder)
    assert contents.keys() == undisturbed.keys()
    assert [name for name, value in undisturbed.items() if contents[name] != value] == []
    assert len([name for name in contents if name.endswith(".safetensors")]) >= 4  # the data, and the run's weights
    assert not list(folder.rglob("*.partial"))


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[tuple[Checkout, Path]]:
    """Yield a checkout whose `results` is a small disk that only its processes see, and the path to it from outside."""
    checkout = create_checkout(path)
    results = path / "results"
    results.mkdir()
    with subprocess.Popen(
        ["unshare", "-rm", "sh", "-c", f"mount -t tmpfs -o size={size} none results && echo ready && exec sleep 900"],
        cwd=path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            if "ready" not in (line := process.stdout.readline()):
                pytest.skip(f"neither mount nor unshare is allowed here: {line.strip()}")
            wd = f"--wd=/proc/{process.pid}/cwd"
            wrapper = ("nsenter", "-t", str(process.pid), "-U", "-m", "--preserve-credentials", wd)
            yield replace(checkout, wrapper=wrapper), Path(f"/proc/{process.pid}/root{results}")
        finally:
            process.kill()


def test_full_disk_fails_in_one_line_and_resumes(tmp_path: Path, undisturbed: dict[str, object]):
    with small_disk(tmp_path / "checkout", "4m") as (checkout, results):
        first = checkout.snakemake("--cores", "1", "results/tiny/network.json", "--configfile", "config/tiny.yaml")
        assert first.returncode == 0, first.stdout[-3000:]
        # The first training has room for some of its files, the next one for none.
        free = os.statvfs(results)
        (results / "ballast").write_bytes(bytes((free.f_bavail * free.f_frsize // 4096 - 9) * 4096))
        failed = checkout.snakemake(*COMMAND)
        assert failed.returncode != 0
        lines = re.findall(DISK_FULL_LINE, failed.stdout, re.MULTILINE)
        assert len(lines) == failed.stdout.count("Error in rule ") > 1, failed.stdout[-3000:]
        assert "Traceback" not in failed.stdout
        assert not list(results.rglob("*.partial"))
        complete = {name: value for name, value in read_contents(results / "tiny").items() if "/trial/" not in name}
        assert {name: value for name, value in complete.items() if undisturbed.get(name) != value} == {}
        (results / "ballast").unlink()
        resumed = checkout.snakemake(*COMMAND)
        assert resumed.returncode == 0, resumed.stdout[-3000:]
        assert "Preparing the data" not in resumed.stdout
        assert_same(results / "tiny", undisturbed)


def test_read_only_results_folder_is_rejected_before_jobs_start(tmp_path: Path):
    with small_disk(tmp_path / "checkout", "4m") as (checkout, results):
        remount = (*checkout.wrapper, "mount", "-o", "remount,ro", "results")
        subprocess.run(remount, cwd=checkout.path, check=True)
        rejected = checkout.snakemake(*COMMAND)
        assert rejected.returncode != 0
        assert rejected.stdout.rstrip().splitlines()[-1].startswith("results: is read-only; ")
        assert "Preparing the data" not in rejected.stdout
        assert "Traceback" not in rejected.stdout
        checkout.stale_jobs("config/tiny.yaml")  # a dry run works
        assert not list(results.iterdir())


def test_ctrl_c_stops_all_jobs_and_the_same_command_resumes(tmp_path: Path, undisturbed: dict[str, object]):
    checkout = create_checkout(tmp_path / "checkout")
    folder = checkout.path / "results" / "tiny"
    for target, log, line in (
        (f"runs/{RUN}/run.json", f"train/{RUN}.log", "epoch 2:"),
        (SEARCH, "tune/bs256.log", "trial 1 (grid)"),
    ):
        command = ("--cores", "1", f"results/tiny/{target}", "--configfile", "config/tiny.yaml")
        with checkout.running(*command) as process:

            def is_training(log: Path = folder / "logs" / log, line: str = line) -> bool:
                assert process.poll() is None, f"it ended without `{line}`"
                return log.exists() and line in log.read_text()

            wait_for(is_training)
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does: Snakemake and its jobs
            output, _ = process.communicate(timeout=TIMEOUT)
            assert process.returncode != 0
            assert "Traceback" not in output
            with suppress(ProcessLookupError):
                os.killpg(process.pid, 0)
                pytest.fail("a process is still running")
        assert not (folder / target).exists()
    done = checkout.snakemake(*COMMAND)  # no --unlock
    assert done.returncode == 0, done.stdout[-3000:]
    assert re.search(r"resuming after [1-9] completed trials", (folder / "logs" / "tune" / "bs256.log").read_text())
    assert_same(folder, undisturbed)
