"""The commands `check`, `cancel` and `--version`, run as a user runs them."""

import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from batchscape.cli.check import check as run_check
from batchscape.errors import UserError
from batchscape.study.study import Study
from tests.helpers.bad_tables import BAD_INPUTS, SEEN_BY_PREPARE_ONLY
from tests.helpers.runs import write_runs_of


def check(file: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "batchscape", "check", file]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    (tmp_path / "mine.yaml").write_text(
        "name: mine\ngrid: {batch_sizes: [32, 64], learning_rates: [0.02], seeds: [7]}\n"
        "comparison: {high_learning_rate: 0.5}\n"
    )
    return tmp_path


def test_check_lists_the_trainings_and_the_settings_of_each_arm(study: Path):
    done = check("mine.yaml", study)
    assert done.returncode == 0, done.stderr
    grid = "2 of the grid, batch sizes (32, 64) × learning rates (0.02) × seeds (7)"
    assert f"9 runs: {grid}, and 7 that arms add\n" in done.stdout
    assert "arm fixed: bs32-lr0.01, bs64-lr0.01\narm linear: bs32-lr0.01, bs64-lr0.02\n" in done.stdout
    assert "arm tuned: bs32-lrtuned, bs64-lrtuned\n" in done.stdout
    line = "9 runs of the confirmation: the settings with the lowest validation loss, with the seeds 1000, 1001, 1002\n"
    assert line in done.stdout
    counts = "9 runs, 9 to confirm 3 settings with 3 other seeds, up to 66 in 2 searches of 12 trials × 2 seeds"
    assert f"90 trainings: {counts} and 3 finalists × 3 seeds" in done.stdout
    assert "GPUs per training: 1 if the machine has GPUs, 0 on a cluster (" in done.stdout
    assert re.search(r"^time \(.*\): an epoch takes \S+ s at batch size 32, \S+ s at batch", done.stdout, re.MULTILINE)
    assert done.stdout.endswith("results go to results/mine/\n")


def test_check_notes_existing_results_and_times_nothing_if_all_runs_are_complete(
    study: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(study)
    write_runs_of(Study.from_file(Path("mine.yaml")))
    output = check("mine.yaml", study).stdout
    assert "results/mine/, which exists" in output
    assert "\ntime: all runs are complete\n" in output
    with (study / "mine.yaml").open("a") as stream:
        stream.write("training: {budget: {epochs: 7}}\n")
    assert "\ntime (rough estimate" in check("mine.yaml", study).stdout


def test_check_refuses_a_batch_that_is_larger_than_the_training_side(tmp_path: Path):
    (tmp_path / "rows.csv").write_text("a,b\n" + "".join(f"{row},{row % 7}\n" for row in range(100)))
    (tmp_path / "mine.yaml").write_text(
        "name: mine\ndata: {source: table, path: rows.csv, target: b}\ntask: {name: regression}\n"
        "grid: {batch_sizes: [16, 90], learning_rates: [0.02], seeds: [7]}\nmodel: {name: mlp}\n"
        "tuning: {enabled: false}\n"
    )
    done = check("mine.yaml", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "mine.yaml: grid.batch_sizes: 90 is more than the 80 training examples; remove it or lower "
        "data.validation_fraction\n"
    )


@pytest.mark.parametrize(("budget", "margin", "warns"), [(24, 1.5, True), (26, 1.5, False), (24, 1, False)])
def test_check_warns_of_a_search_without_a_trial_after_its_grid(
    study: Path, monkeypatch: pytest.MonkeyPatch, budget: float, margin: float, warns: bool
):
    with (study / "mine.yaml").open("a") as file:
        file.write(
            "training: {budget: {epochs: 10}}\n"
            f"tuning: {{budget: {budget}, startup_trials: 12, trial_budget: {{epochs: 5}}, margin: {margin},\n"
            "  finalists: {settings: 4, seeds: [200, 201, 202]}}\n"
        )
    monkeypatch.chdir(study)
    lines = [line for line in run_check(Path("mine.yaml")) if line.startswith("tuning.budget: pays no trial")]
    assert len(lines) == warns


@pytest.mark.parametrize(("fixed", "warns"), [(0.6, True), (0.5, False), (0.01, False)])
def test_check_warns_of_a_high_rate_below_the_fixed_one(
    study: Path, monkeypatch: pytest.MonkeyPatch, fixed: float, warns: bool
):
    text = (study / "mine.yaml").read_text()
    (study / "mine.yaml").write_text(text.replace("{high", f"{{fixed_learning_rate: {fixed}, high"))
    monkeypatch.chdir(study)
    lines = [line for line in run_check(Path("mine.yaml")) if line.startswith("comparison.high_learning_rate: 0.5 is")]
    assert len(lines) == warns


def test_version_is_that_of_the_package():
    done = subprocess.run([sys.executable, "-m", "batchscape", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"batchscape {metadata.version('batchscape')}\n"


def test_cancel_without_slurm_fails_with_one_line(study: Path):
    command = [sys.executable, "-m", "batchscape", "cancel"]
    done = subprocess.run(command, cwd=study, env={"PATH": str(study)}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "squeue: is not found; run this on a login node of the Slurm cluster\n"


def test_check_inspects_the_data(study: Path):
    with (study / "mine.yaml").open("a") as stream:
        stream.write("data: {source: arrays, path: digits.csv}\n")
    (study / "digits.csv").write_text("label,pixel\n7,255\n")
    done = check("mine.yaml", study)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("mine.yaml: data.path: digits.csv is neither an .npy nor an .npz file; ")


def test_check_of_a_loss_that_fails_ends_with_one_line_and_status_1(study: Path):
    with (study / "mine.yaml").open("a") as stream:
        stream.write("task: {loss: 'losses:broken'}\n")
    (study / "losses.py").write_text(
        "def broken(outputs, targets, *, reduction='mean'):\n    return outputs / targets[0, 0]\n"
    )
    done = check("mine.yaml", study)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("mine.yaml: task.loss: losses:broken fails: IndexError: ")
    assert line.endswith("(losses.py, line 2)")


def test_check_of_a_missing_file_fails_with_one_line(study: Path):
    done = check("missing.yaml", study)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "missing.yaml: no such file; give the path of a study file, such as config/config.yaml"
    ]


def test_a_tracker_that_is_not_installed_is_refused_with_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("name: mine\ntracking: [csv, wandb]\n")
    message = (
        r"^mine\.yaml: tracking: the package wandb is not installed; run `pip install 'batchscape\[wandb\]'`, or .*$"
    )
    monkeypatch.setitem(sys.modules, "wandb", None)  # which makes it impossible to import
    with pytest.raises(UserError, match=message):
        run_check(Path("mine.yaml"))
    # The folder of the package's own files in the working directory is no package.
    monkeypatch.delitem(sys.modules, "wandb")
    Path("wandb").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(UserError, match=message):
        run_check(Path("mine.yaml"))


def test_a_system_without_file_locks_is_refused_with_one_line():
    code = "import sys; sys.modules['fcntl'] = None; import batchscape.study.study"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "Batchscape runs on Linux and macOS; on Windows, install and run it in WSL\n"


# Runs `check` on each file of the arguments as `batchscape` does, in one process, as imports take a second.
CHECK_ALL = """
import contextlib, io, json, sys
from batchscape.__main__ import main

for file in sys.argv[1:]:
    sys.argv[1:] = ["check", file]
    with contextlib.redirect_stderr(io.StringIO()) as errors:
        status = main()
    print(json.dumps([status, errors.getvalue()]))
"""


def test_each_mistake_in_the_data_ends_check_with_one_line_and_status_1(tmp_path: Path):
    cases = [case for case in BAD_INPUTS if case.name not in SEEN_BY_PREPARE_ONLY]
    for number, case in enumerate(cases):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        data = case.write(folder)
        study = {"name": f"study-{number}", "data": data, "task": {"name": case.task}}
        (tmp_path / f"{number}.yaml").write_text(json.dumps(study))  # JSON is YAML
    command = [sys.executable, "-c", CHECK_ALL, *(f"{number}.yaml" for number in range(len(cases)))]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    for number, (case, line) in enumerate(zip(cases, done.stdout.splitlines(), strict=True)):
        status, message = json.loads(line)
        assert status == 1, case.name
        assert message.count("\n") == 1, message
        assert message.startswith(f"{number}.yaml: {case.expected[0].replace('{}', str(tmp_path / str(number)))}")


@pytest.mark.parametrize(
    ("data", "model"),
    [
        ("{source: diamonds, encoding: embedded}", "mlp, dense: [8]"),
        ("{source: python_docs}", "transformer, width: 12"),
    ],
)
def test_check_estimates_the_time_of_tables_and_text(tmp_path: Path, data: str, model: str):
    (tmp_path / "mine.yaml").write_text(f"name: mine\ndata: {data}\nmodel: {{name: {model}}}\n")
    done = check("mine.yaml", tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^time \(.*\): an epoch takes \S+ s at batch size 32", done.stdout, re.MULTILINE)
