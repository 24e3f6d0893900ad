"""A copy of the project in which tests run Snakemake, and the comparison of two results folders."""

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

from batchscape.io.frames import read_frame
from batchscape.io.run_directory import RunDirectory
from tests.helpers.dry_run import dry_run

PROJECT = Path(__file__).parents[2]
COPIED = ("Snakefile", "workflow", "src", "config", "envs", "profiles", "pyproject.toml")
JOB_LINE = re.compile(r"^(?:Job \d+: (?P<message>.*)|(?:local)?rule (?P<rule>\w+):)$", re.MULTILINE)
# The tests' short name of a job, by how the message of its rule starts.
JOB_NAMES = {
    "Preparing the data of ": "prepare",
    "Checking that the network fits the data": "network",
    "Training ": "train ",
    "Choosing the finalists": "finalists",
    "Choosing the stages of ": "stages ",
    "Confirming ": "confirm ",
    "Adding runs to the trackers": "track",
    "Tuning the learning rate of batch size ": "tune ",
    "Analyzing ": "analyze ",
    "Timing epochs on several ": "time ",
    "Gathering ": "gather ",
    "Making the table ": "table ",
    "Drawing ": "figure ",
    "Writing the report of ": "report",
}
# The messages that list all runs of a job.
TRAINING_MESSAGES = ("Training ", "Confirming ")
# Columns of times, and of remarks about times, differ from run to run.
TIME_COLUMNS = ("seconds", "shorter_epochs")


def restore_sigint() -> None:
    """Let a child process react to Ctrl-C: a shell has its background processes ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@dataclass(frozen=True)
class Checkout:
    """A copy of the project in which Snakemake runs for real."""

    path: Path
    wrapper: tuple[str, ...] = ()
    """A command that runs Snakemake's, such as `nsenter`."""
    python: str = sys.executable

    @classmethod
    def at(cls, path: Path) -> "Checkout":
        path.mkdir(parents=True, exist_ok=True)
        for name in COPIED:
            source = PROJECT / name
            if source.is_dir():
                shutil.copytree(source, path / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
            else:
                shutil.copy(source, path / name)
        return cls(path)

    def with_virtual_environment(self) -> "Checkout":
        """Return the checkout with the Python of a `.venv` inside it, as after `make setup`."""
        (self.path / ".venv").symlink_to(sys.prefix)
        return replace(self, python=str(self.path / ".venv" / "bin" / "python"))

    def snakemake(self, *arguments: str, timeout: float = 1800) -> subprocess.CompletedProcess[str]:
        """Run Snakemake as a user does; `stdout` holds both streams."""
        with self.running(*arguments) as process:
            output, _ = process.communicate(timeout=timeout)
        return subprocess.CompletedProcess(process.args, process.returncode, output)

    @contextmanager
    def running(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """Start Snakemake in a new process group, which is killed at the end."""
        # The copy must find its own library by itself, not through a path that the tests were started with.
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        process = subprocess.Popen(
            [*self.wrapper, self.python, "-m", "snakemake", *arguments],
            cwd=self.path,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=restore_sigint,
        )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.stdout.close()
            process.wait()

    def run(self, config: str | Path, *arguments: str, cores: int = 2) -> str:
        """Run a study, which must succeed; return Snakemake's output."""
        done = self.snakemake("--cores", str(cores), "all", "--configfile", str(config), *arguments)
        assert done.returncode == 0, done.stdout[-4000:]
        return done.stdout

    def stale_jobs(self, config: str | Path, *arguments: str, target: str = "all") -> set[str]:
        """Return the jobs that the next run would start, such as `train bs64-lr0.02-seed0` and `table curves`.

        A job that trains several seeds counts as one for each.
        """
        status, output = dry_run(self.path, ["--cores", "8", target, "--configfile", str(config), *arguments])
        assert status == 0, output[-4000:]
        messages = {match["message"] for match in JOB_LINE.finditer(output) if match["message"]}
        jobs = {job for message in messages if not message.startswith("All of ") for job in _job_names(message)}
        assert bool(jobs) != ("Nothing to be done" in output), output[-2000:]
        return jobs


def _job_names(message: str) -> set[str]:
    message = message.replace("Analyzing all runs: ", "Analyzing ")
    for start, job in JOB_NAMES.items():
        if message.startswith(start):
            rest = message.removeprefix(start)
            if start == "Drawing ":  # the file
                rest = Path(rest).stem
            parts = rest.split(", ") if start in TRAINING_MESSAGES else [rest]
            return {job + part if job.endswith(" ") else job for part in parts}
    raise AssertionError(f"unknown message of a job: {message!r}")


def drop_times(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table without columns of times, and without rows about one."""
    columns = table[[column for column in table if not any(part in column for part in TIME_COLUMNS)]]
    texts = columns.select_dtypes(exclude="number").astype(str)
    is_about_time = texts.apply(lambda column: column.str.contains("|".join(TIME_COLUMNS))).any(axis=1)
    return columns[~is_about_time]


def assert_same_results(expected: Path, actual: Path, subset: bool = False) -> int:
    """Assert that two folders of a study have the same files with the same numbers; return how many were compared.

    With `subset` the second folder may lack files.
    """
    files = [
        {
            path.relative_to(root)
            for path in root.rglob("*")
            # Files in the cache of an analysis are named by when its run was trained.
            if path.is_file() and not {"logs", "benchmarks", ".cache"} & set(path.relative_to(root).parts)
        }
        for root in (expected, actual)
    ]
    assert files[1] <= files[0] if subset else files[1] == files[0]
    compared = 0
    for path in sorted(files[1]):
        if path.suffix == ".csv":
            tables = (drop_times(read_frame(root / path)) for root in (expected, actual))
            pd.testing.assert_frame_equal(*tables, check_exact=True, obj=str(path))
        elif path.suffix in (".safetensors", ".npy"):
            assert (expected / path).read_bytes() == (actual / path).read_bytes(), path
        elif path.name == "run.json":
            summaries = [RunDirectory((root / path).parent).summary() for root in (expected, actual)]
            for summary in summaries:
                del summary["provenance"]["started"], summary["provenance"]["finished"]
            assert summaries[0] == summaries[1]
        else:
            continue
        compared += 1
    return compared
