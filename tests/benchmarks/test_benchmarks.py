"""Each benchmark runs; its times are not tested."""

import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def benchmark(name: str, *arguments: str) -> str:
    """Run a benchmark as a user does, and return its output."""
    command = [sys.executable, BENCHMARKS / f"{name}.py", *arguments]
    done = subprocess.run(command, cwd=BENCHMARKS.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_benchmark_is_tested():
    names = {path.stem for path in BENCHMARKS.glob("*.py")}
    assert names == {
        *("analyses", "coverage", "identical_runs", "images", "loss_surface", "search", "study", "tasks", "training"),
        *("during_training", "cost", "gpu", "trackers", "scale"),
    }


def test_loss_surface_benchmark_runs_without_the_compared_package(tmp_path: Path):
    # The benchmark compares the losses itself, and ends with a status other than 0 where they differ.
    script = BENCHMARKS / "loss_surface.py"
    without = (
        "import importlib.util, runpy, sys; find = importlib.util.find_spec;"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'loss_landscapes' else find(name, *rest);"
        f"sys.argv = [{str(script)!r}, '--quick']; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", without], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("over the floor") == 2
    assert "loss-landscapes is not installed and was skipped" in done.stdout


@pytest.mark.parametrize(
    ("name", "arguments", "contenders"),
    [
        (
            "coverage",
            [],
            ["exponent, noise 0.2", "tolerance", "20 % critical batch", "claim", "equivalence", "Holm, errors"],
        ),
        ("analyses", [], ["training, batch 64", "sharpness", "landscape", "analyses / trainings"]),
        ("during_training", [], ["run, batch size 256", "curvature", "branches"]),
        ("training", [], ["train", "hand-written", "stock Lightning"]),
        ("tasks", [], ["diamonds, batch size 32", "python_docs, batch size 32", "hand-written, the same", "stock"]),
        ("images", [], ["train", "stock Lightning, floats", "stock Lightning, bytes"]),
        ("images", ["--memory"], ["together at most"]),
        ("cost", [], ["seeds: the time has slope"]),
        ("gpu", ["--accelerator", "cpu"], ["batch size 128", "2 jobs at once"]),
        ("trackers", [], ["csv           open", "tensorboard   open"]),
    ],
)
def test_benchmark_runs(name: str, arguments: list[str], contenders: list[str]):
    printed = benchmark(name, "--quick", *arguments)
    assert all(contender in printed for contender in contenders), printed


def test_study_benchmark_reads_the_logs_of_jobs(tmp_path: Path):
    for job in ("prepare", "train/one", "train/two"):
        log = tmp_path / "logs" / f"{job}.log"
        work = f"from batchscape.runtime.job import job_log\nwith job_log({str(log)!r}): sum(range(10**7))"
        subprocess.run([sys.executable, "-c", work], check=True)
    rows = {line.split()[0]: line.split()[1] for line in benchmark("study", str(tmp_path), "--cores", "2").splitlines()}
    assert rows["train"] == "2"
    assert rows["all"] == "3"


ONE_RUN = """
name: one
grid: {batch_sizes: [256], learning_rates: [0.02], seeds: [0]}
model: {channels: [2], dense: [2]}
training: {budget: {epochs: 2}}
comparison: {fixed_learning_rate: 0.02, high_learning_rate: 0.02}
arms: {linear: {enabled: false}, sqrt: {enabled: false}}
tuning: {enabled: false}
"""


def test_scale_benchmark_plans_and_counts(tmp_path: Path):
    benchmark_of_runs = runpy.run_path(str(BENCHMARKS / "scale.py"))
    output = benchmark("scale", "--quick")
    assert re.search(r"^ +200 runs,  1 seeds per job: +302 jobs; ", output, re.MULTILINE)
    assert "queue, 10 seeds per job: 200 submissions, " in output

    results, metadata = tmp_path / "results" / "any", tmp_path / ".snakemake" / "metadata"
    for folder in (results / "runs" / "bs1-lr1-seed0", results / "logs" / "train", metadata):
        folder.mkdir(parents=True)
    for file in (results / "runs/bs1-lr1-seed0/run.json", results / "logs/train/bs1-lr1-seed0.log", metadata / "any"):
        file.write_bytes(bytes(1000))
    assert benchmark_of_runs["files_per_run"](results) == (4, 4000)

    simulate = benchmark_of_runs["simulate"]
    # One place: each job of 7 s is seen to have ended at the next poll, after 10 s.
    assert simulate(num_jobs=3, seconds=7, limit=1, submit=0, poll=10) == 30
    # Places for all: the last submission, its job, and the poll.
    assert simulate(num_jobs=3, seconds=7, limit=9, submit=2, poll=1) == 13


def test_runs_of_two_studies_are_compared(tmp_path: Path):
    study = tmp_path / "one.yaml"
    study.write_text(ONE_RUN)
    compute = runpy.run_path(str(BENCHMARKS / "identical_runs.py"))["compute"]
    before = compute(BENCHMARKS.parent, study, tmp_path / "before", 2)
    after = tmp_path / "after"
    shutil.copytree(before, after)
    assert "1 runs compared, 0 differences" in benchmark("identical_runs", str(before), str(after))
    path = next(path for path in after.rglob("update_norms.npy") if not path.parent.name.startswith("."))
    norms = np.load(path)
    norms[-1] = np.nextafter(norms[-1], np.inf)
    np.save(path, norms)
    command = [sys.executable, BENCHMARKS / "identical_runs.py", before, after]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout.splitlines()[0].endswith(": different update norms")


def test_search_with_the_default_margin_finds_rates_that_rarely_fail():
    (line,) = benchmark("search", "--quick").splitlines()
    share = re.fullmatch(r"margin 1\.5, 8 trials: (\d+\.\d\d) ± .* % of new seeds fail: .*", line)
    assert float(share[1]) <= 2


def test_tables_of_two_studies_are_compared_by_column(tmp_path: Path):
    contents = {
        "before": "least_validation_loss_mean,epoch_seconds,advice,best\n0.5,1.0,lower it,1\n",
        "renamed": "is_best,best_validation_loss_mean,epoch_seconds,advice\n1,0.5,2.0,use a lower one\n",
        "changed": "best_validation_loss_mean,is_best\n0.25,1\n",
    }
    for name, content in contents.items():
        (tmp_path / name / "tables").mkdir(parents=True)
        (tmp_path / name / "tables" / "lr_grid.csv").write_text(content)
    benchmark = runpy.run_path(str(BENCHMARKS / "identical_runs.py"))
    before, renamed, changed = (benchmark["hash_tables"](tmp_path / name) for name in contents)
    assert before == renamed
    assert benchmark["find_differences"](before, changed) == ["tables/lr_grid: different best_validation_loss_mean"]
