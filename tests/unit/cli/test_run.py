"""`batchscape run`: the command of Snakemake that it becomes."""

import subprocess
import sys
from pathlib import Path

import pytest

from batchscape.cli.run import snakemake_command
from batchscape.errors import UserError
from batchscape.runtime.workflow import SNAKEFILE

STUDY = "name: mine\ntuning: {enabled: false}\n"


def options_of(command: list[str]) -> list[str]:
    return command[command.index("snakemake") + 1 :]


def test_options_and_targets_are_passed_on_and_the_study_is_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "Snakefile").touch()
    monkeypatch.chdir(tmp_path)
    options = ["all", "--cores", "8", "--config", "name=x"]
    assert options_of(snakemake_command(Path("study.yaml"), options)) == [*options, "--configfile", "study.yaml"]


def test_without_a_snakefile_it_is_that_of_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    command = snakemake_command(Path("study.yaml"), ["-n"])
    assert options_of(command) == ["--snakefile", str(SNAKEFILE), "-n", "--configfile", "study.yaml"]
    (tmp_path / "workflow").mkdir()
    (tmp_path / "workflow" / "Snakefile").touch()
    assert "--snakefile" not in snakemake_command(Path("study.yaml"), ["-n"])


@pytest.mark.parametrize("option", ["--configfile", "--configfiles", "--configfile=other.yaml"])
def test_another_study_is_refused(option: str):
    with pytest.raises(UserError, match=r"--configfile: is study\.yaml, which `run` adds; leave the option out"):
        snakemake_command(Path("study.yaml"), [option, "other.yaml"])


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "batchscape", "run", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_exit_status_is_that_of_snakemake(tmp_path: Path):
    (tmp_path / "study.yaml").write_text(STUDY)
    done = run(tmp_path, "study.yaml", "--no-such-option")
    assert done.returncode == 2, done.stderr
    assert "unrecognized arguments: --no-such-option" in done.stderr
    assert done.stdout.startswith("study.yaml: is a valid study\n")


def test_nothing_runs_if_the_study_is_not_valid(tmp_path: Path):
    (tmp_path / "study.yaml").write_text("name: mine\ngird: {}\n")
    done = run(tmp_path, "study.yaml", "--cores", "1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "study.yaml: gird: is not a known key; did you mean `grid`?\n"
    assert {path.name for path in tmp_path.iterdir()} == {"study.yaml"}
