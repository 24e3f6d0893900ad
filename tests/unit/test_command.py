"""`python -m batchscape check` as a user types it."""

import subprocess
import sys
from pathlib import Path

import pytest


def check(file: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "batchscape", "check", file]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    (tmp_path / "mine.yaml").write_text(
        "name: mine\ngrid: {batch_sizes: [32, 64], learning_rates: [0.02], seeds: [7]}\ncomparison: {high_lr: 0.5}\n"
    )
    return tmp_path


def test_check_says_what_would_train_and_what_each_arm_asks_for(study: Path):
    done = check("mine.yaml", study)
    assert done.returncode == 0, done.stderr
    grid = "2 of the grid, batch sizes (32, 64) × learning rates (0.02) × seeds (7)"
    assert f"9 runs: {grid}, and 7 that arms add\n" in done.stdout
    assert "arm fixed: bs32-lr0.01, bs64-lr0.01\narm linear: bs32-lr0.01, bs64-lr0.02\n" in done.stdout
    assert "arm tuned: bs32-lrtuned, bs64-lrtuned\n" in done.stdout
    assert done.stdout.endswith("results go to results/mine/\n")


def test_check_warns_of_results_that_would_be_made_anew(study: Path):
    (study / "results" / "mine").mkdir(parents=True)
    assert "results/mine/, which exists" in check("mine.yaml", study).stdout


def test_cancel_without_slurm_is_told_in_one_line(study: Path):
    command = [sys.executable, "-m", "batchscape", "cancel"]
    done = subprocess.run(command, cwd=study, env={"PATH": str(study)}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "squeue: is not found; run this on a login node of the Slurm cluster\n"


def test_check_refuses_in_one_line(study: Path):
    done = check("missing.yaml", study)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "missing.yaml: there is no such file; give the path of a study file, such as config/config.yaml"
    ]


def test_a_system_without_locks_of_files_is_refused_in_one_line():
    code = "import sys; sys.modules['fcntl'] = None; import batchscape.study"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "Batchscape runs on Linux and macOS; on Windows, install and run it in WSL\n"
