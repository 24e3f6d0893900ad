"""When an analysis and a run fail, everything else is made, and `batchscape report` reports it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from batchscape.study.registry import FIGURES
from batchscape.study.study import Study
from tests.helpers.checkout import Checkout

pytestmark = pytest.mark.slow

DISABLED = ("tuning", "interpolation", "landscape", "gradient_alignment", "device_timing", "confirmation")
STUDY = """\
name: half
data: {validation_fraction: 0.8}
grid: {batch_sizes: [64, 256], learning_rates: [0.02, 0.08], seeds: [0]}
model: {channels: [2], dense: []}
training: {budget: {epochs: 3}}
comparison: {fixed_learning_rate: 0.02, high_learning_rate: 0.08}
arms: {linear: {enabled: false}, sqrt: {enabled: false}}
sharpness: {checkpoints: [best], subspace_dimension: 2, iterations: 1, random_starts: 0, trace_matvecs: 3}
""" + "".join(f"{section}: {{enabled: false}}\n" for section in DISABLED)
COMMAND = "`batchscape report half.yaml` writes a report of the results so far."


def report(checkout: Checkout) -> subprocess.CompletedProcess[str]:
    # As in a terminal of a notebook, with a backend that is not installed here.
    notebook = {"MPLBACKEND": "module://matplotlib_inline.nowhere"}
    environment = {**os.environ, **notebook, "PYTHONPATH": str(checkout.path / "src")}
    command = [sys.executable, "-m", "batchscape", "report", "half.yaml"]
    return subprocess.run(command, cwd=checkout.path, env=environment, capture_output=True, text=True, check=False)


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def test_failures_stop_only_dependent_jobs_and_the_partial_report_has_the_rest(tmp_path: Path):
    checkout = Checkout.at(tmp_path / "checkout")
    (checkout.path / "half.yaml").write_text(STUDY)
    study = Study.from_file(checkout.path / "half.yaml")
    results = checkout.path / study.paths.folder
    failing_run = "bs256-lr0.08-seed0"
    # Files in place of folders: the run cannot write its weights, and no sharpness job its cache.
    blocked = [results / "runs" / failing_run / "weights", results / "analysis" / "sharpness" / ".cache"]
    for path in blocked:
        path.parent.mkdir(parents=True)
        path.write_text("")

    done = checkout.snakemake("--cores", "2", "all", "--configfile", "half.yaml")
    assert done.returncode == 1
    assert "Traceback" not in done.stdout
    assert COMMAND in done.stdout.splitlines()[-8:]
    assert not (checkout.path / study.paths.report).exists()
    assert sum((checkout.path / file).exists() for file in study.paths.run_summaries) == len(study.runs) - 1
    before = files(results)

    done = report(checkout)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    page = checkout.path / study.paths.partial_report
    assert files(results) - before == {page}
    text = page.read_text()
    assert "3 of 4 runs complete." in text
    for missing in (
        f"run {failing_run}",
        "analysis sharpness/bs64-lr0.02, sharpness/bs64-lr0.08, sharpness/bs256-lr0.02",
    ):
        (line,) = (line for line in text.splitlines() if f"<b>{missing}</b>: FileExistsError: " in line)
        assert f"missing {missing}: FileExistsError: " in done.stdout
        assert "File exists" in line
    shown = {name for name in FIGURES if f'id="figure-{name}"' in text}
    assert shown == set(study.plan.figures) - {"sharpness", "sharpness_before_after"}
    assert "Not tested: the sharpness of these runs was not measured." in text

    # The page does not change what is still to be made, and is deleted once the complete report exists.
    for path in blocked:
        path.unlink()
    stale = checkout.stale_jobs("half.yaml")
    assert {f"train {failing_run}", "analyze bs64-lr0.02: sharpness", "report", "table claims"} <= stale
    assert f"train {failing_run.replace('256', '64')}" not in stale
    checkout.run("half.yaml")
    assert (checkout.path / study.paths.report).exists()
    assert not page.exists()
    assert "partial" not in (checkout.path / study.paths.report).read_text()
