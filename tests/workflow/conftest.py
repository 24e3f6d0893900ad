"""A finished smoke study in a checkout of its own, and what a dry run of it would do."""

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pytest

from batchscape.io.frames import read_frame
from batchscape.io.run_directory import RunDirectory
from tests.helpers.dry_run import dry_run

PROJECT = Path(__file__).parents[2]
PARTS = ("Snakefile", "workflow", "src", "config", "envs", "profiles", "pyproject.toml")
JOB = re.compile(r"^(?:Job \d+: (?P<message>.*)|(?:local)?rule (?P<rule>\w+):)$", re.MULTILINE)
MESSAGES = {
    "Preparing the data of ": "prepare",
    "Checking that the network fits the data": "network",
    "Training ": "train ",
    "Tuning the learning rate of batch size ": "tune ",
    "Analysing ": "analyse ",
    "Timing epochs on several ": "time ",
    "Gathering ": "gather ",
    "Making the table ": "table ",
    "Drawing the figure ": "figure ",
    "Writing the report of ": "report",
}


# Times are not to be the same, nor what is said of them.
TIMES = ("seconds", "shorter_epochs")


def heed_ctrl_c() -> None:
    """As in a terminal; a shell has what it starts in the background ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@dataclass(frozen=True)
class Checkout:
    """A copy of the project in which Snakemake runs for real."""

    path: Path
    within: tuple[str, ...] = ()
    """A command that runs another one, such as `nsenter`, to run Snakemake by."""
    python: str = sys.executable

    @classmethod
    def at(cls, path: Path) -> "Checkout":
        path.mkdir(parents=True, exist_ok=True)
        for part in PARTS:
            source = PROJECT / part
            if source.is_dir():
                shutil.copytree(source, path / part, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
            else:
                shutil.copy(source, path / part)
        return cls(path)

    def with_own_environment(self) -> "Checkout":
        """The same, but with the Python of a `.venv` in it, as `make setup` puts it there."""
        (self.path / ".venv").symlink_to(sys.prefix)
        return replace(self, python=str(self.path / ".venv" / "bin" / "python"))

    def snakemake(self, *arguments: str, timeout: float = 1800) -> subprocess.CompletedProcess[str]:
        """Run Snakemake as a user does; the output holds both streams."""
        with self.started(*arguments) as process:
            output, _ = process.communicate(timeout=timeout)
        return subprocess.CompletedProcess(process.args, process.returncode, output)

    @contextmanager
    def started(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """Start Snakemake in a process group of its own; at the end nothing of the group is left."""
        # The copy must find its own library by itself, not because the tests were started with a path to one.
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        process = subprocess.Popen(
            [*self.within, self.python, "-m", "snakemake", *arguments],
            cwd=self.path,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=heed_ctrl_c,
        )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.stdout.close()
            process.wait()

    def run(self, config: str | Path, *arguments: str, cores: int = 2) -> str:
        done = self.snakemake("--cores", str(cores), "all", "--configfile", str(config), *arguments)
        assert done.returncode == 0, done.stdout[-4000:]
        return done.stdout

    def stale(self, config: str | Path, *arguments: str, target: str = "all") -> set[str]:
        """Return the jobs that the next `snakemake all` would run: `train bs64-lr0.02-seed0`, `table curves`."""
        status, output = dry_run(self.path, ["--cores", "8", target, "--configfile", str(config), *arguments])
        assert status == 0, output[-4000:]
        messages = {match["message"] for match in JOB.finditer(output) if match["message"]}
        jobs = {_job(message) for message in messages if not message.startswith("All of ")}
        assert bool(jobs) != ("Nothing to be done" in output), output[-2000:]
        return jobs


def _job(message: str) -> str:
    message = message.replace("Analysing all runs: ", "Analysing ")
    for start, job in MESSAGES.items():
        if message.startswith(start):
            return job + message.removeprefix(start) if job.endswith(" ") else job
    raise AssertionError(f"a job that the tests do not know: {message!r}")


def without_times(table: pd.DataFrame) -> pd.DataFrame:
    """Leave out columns of times, and rows that are of one."""
    kept = table[[column for column in table if not any(part in column for part in TIMES)]]
    texts = kept.select_dtypes(exclude="number").astype(str)
    of_a_time = texts.apply(lambda column: column.str.contains("|".join(TIMES))).any(axis=1)
    return kept[~of_a_time]


def assert_the_same(one: Path, two: Path, part: bool = False) -> int:
    """Two folders of a study have the same files, and in them the same numbers; return how many were compared.

    With `part` the second one may have fewer files.
    """
    files = [
        {
            path.relative_to(root)
            for path in root.rglob("*")
            # What is kept of an analysis is named by when its run was trained.
            if path.is_file() and not {"logs", "benchmarks", ".kept"} & set(path.relative_to(root).parts)
        }
        for root in (one, two)
    ]
    assert files[1] <= files[0] if part else files[1] == files[0]
    compared = 0
    for path in sorted(files[1]):
        if path.suffix == ".csv":
            tables = (without_times(read_frame(root / path)) for root in (one, two))
            pd.testing.assert_frame_equal(*tables, check_exact=True, obj=str(path))
        elif path.suffix in (".safetensors", ".npy"):
            assert (one / path).read_bytes() == (two / path).read_bytes(), path
        elif path.name == "run.json":
            summaries = [RunDirectory((root / path).parent).summary() for root in (one, two)]
            for summary in summaries:
                del summary["provenance"]["started"], summary["provenance"]["finished"]
            assert summaries[0] == summaries[1]
        else:
            continue
        compared += 1
    return compared


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A file's own copy of the finished smoke study, which the first of the tests' processes runs to its end for all.

    A test that edits it puts back what others of its file look at.
    """
    own = tmp_path_factory.mktemp("finished") / "checkout"
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    with (shared / "finished.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made, whole = Checkout(shared / "finished" / "checkout"), shared / "finished" / "whole"
        if not whole.exists():
            shutil.rmtree(made.path, ignore_errors=True)  # of a process in which it failed
            Checkout.at(made.path).run("config/smoke.yaml")
            whole.touch()
    shutil.copytree(made.path, own, symlinks=True)
    return Checkout(own)
