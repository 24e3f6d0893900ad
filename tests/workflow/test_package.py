"""The package as `pip install` of its wheel leaves it: studies run in a folder without a clone."""

import json
import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from batchscape.io.frames import read_frame
from tests.helpers.checkout import PROJECT

pytestmark = pytest.mark.slow

TINY = """\
name: tiny
data: {validation_fraction: 0.8}
grid: {batch_sizes: [64, 256], learning_rates: [0.1], seeds: [0]}
training: {budget: {epochs: 1}}
model: {channels: [4], dense: [8]}
comparison: {fixed_learning_rate: 0.1, high_learning_rate: 0.1}
arms: {linear: {enabled: false}, sqrt: {enabled: false}}
tuning: {enabled: false}
confirmation: {enabled: false}
"""
RUNS = "results/tiny/tables/runs.csv"


@dataclass(frozen=True)
class Installation:
    """An environment with nothing but the wheel; the packages that it requires are those of the tests."""

    python: Path
    folder: Path
    """The installed package."""

    def run(self, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the environment in a folder; `stdout` has both streams."""
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        return subprocess.run(
            [str(self.python.parent / command[0]), *command[1:]],
            cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip

    def snakemake(self, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run(folder, "python", "-m", "snakemake", "--cores", "1", *arguments)

    def files(self) -> set[Path]:
        return {path for path in self.folder.rglob("*") if "__pycache__" not in path.parts}


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    folder = tmp_path_factory.mktemp("an installation")
    # Its commit is not that of the package.
    for command in (["init"], ["-c", "user.name=x", "-c", "user.email=x@y", "commit", "--allow-empty", "-m", "x"]):
        subprocess.run(["git", *command, "--quiet"], cwd=folder, check=True)
    quiet = {"check": True, "stdout": subprocess.DEVNULL}
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, cwd=PROJECT, **quiet)
    (wheel,) = folder.glob("*.whl")
    python = folder / "env" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "env")], **quiet)
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, str(wheel)], **quiet)
    (packages,) = folder.glob("env/lib/*/site-packages")
    required = [path for path in sys.path if Path(path).name == "site-packages"]
    (packages / "of_the_tests.pth").write_text("\n".join(required))
    return Installation(python, packages / "batchscape")


def test_an_editable_installation_has_no_copy_of_the_workflow(tmp_path: Path):
    build = "import sys; from hatchling.build import build_editable; build_editable(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=PROJECT, check=True, stdout=subprocess.DEVNULL)
    (wheel,) = tmp_path.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == {"_batchscape.pth"}


def test_a_study_runs_in_a_folder_without_a_clone(installation: Installation, tmp_path: Path):
    before = installation.files()
    folder = tmp_path / "mine"
    for command in (["init", str(folder)], ["run", str(folder / "study.yaml"), "--directory", str(folder), "-n"]):
        done = installation.run(tmp_path, "batchscape", *command)
        assert done.returncode == 0, done.stdout[-3000:]
    assert "Writing the report of mine" in done.stdout
    # Where there is no profile, as here, it is that of the package too.
    assert f"profile {installation.folder}/_workflow/profiles/default" in done.stdout
    assert {path.name for path in folder.iterdir()} <= {"study.yaml", "Snakefile", "profiles", ".snakemake"}

    (folder / "tiny.yaml").write_text(TINY)
    done = installation.run(folder, "batchscape", "run", "tiny.yaml", RUNS, "--cores", "1")
    assert done.returncode == 0, done.stdout[-3000:]
    assert sorted(read_frame(folder / RUNS)["batch_size"]) == [64, 256]
    run = json.loads((folder / "results/tiny/runs/bs64-lr0.1-seed0/run.json").read_text())
    assert run["provenance"]["source_commit"] is None
    assert installation.files() == before

    # Through the Snakefile of the folder, that of the package and that of a clone.
    for snakefile in ([], [installation.folder / "_workflow" / "Snakefile"], [PROJECT / "Snakefile"]):
        options = [part for file in snakefile for part in ("--snakefile", str(file))]
        done = installation.snakemake(folder, *options, "-n", RUNS, "--configfile", "tiny.yaml")
        assert done.returncode == 0, done.stdout[-3000:]
        assert "Nothing to be done" in done.stdout, done.stdout[-3000:]


def test_snakemake_runs_the_study_of_the_folder(installation: Installation, tmp_path: Path):
    installation.run(tmp_path, "batchscape", "init", ".", "--data", "synthetic")
    study = tmp_path / "study.yaml"
    study.write_text(study.read_text().replace(f"name: {tmp_path.name}", "name: no"))
    for options in ([], ["--workflow-profile", "profiles/slurm"]):
        done = installation.snakemake(tmp_path, "-n", *options)
        assert done.returncode == 0, done.stdout[-3000:]
        assert "All of no" in done.stdout  # read as `batchscape check` reads it: in YAML 1.1 it is false
    study.write_text(study.read_text().replace("  seeds: [0", "  sedes: [0"))
    done = installation.snakemake(tmp_path, "-n")
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].startswith("study.yaml: grid.sedes: is not a known key; did you mean `seeds`?")
