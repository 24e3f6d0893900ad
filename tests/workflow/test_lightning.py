"""A LightningModule with its own loss, optimizer and data in the real workflow, and `verify` of such a study."""

import os
import subprocess
import sys

import pytest

from batchscape.io.run_directory import RunDirectory
from tests.helpers.checkout import PROJECT, Checkout

pytestmark = pytest.mark.slow

STUDY = """
name: lit
data: {source: "my_lit:MnistLike", arguments: {count: 120}}
task: {loss: module, metrics: [accuracy]}
model: {name: "my_lit:LitClassifier"}
optimizer: {name: module}
grid: {batch_sizes: [16, 32], learning_rates: [0.01], seeds: [0]}
training: {budget: {epochs: 2}}
"""
RUNS = [f"results/lit/runs/bs{size}-lr0.01-seed0/run.json" for size in (16, 32)]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    checkout = Checkout.at(tmp_path_factory.mktemp("lightning") / "checkout")
    (checkout.path / "my_lit.py").write_bytes((PROJECT / "tests" / "helpers" / "lightning.py").read_bytes())
    (checkout.path / "lit.yaml").write_text(STUDY)
    return checkout


def test_module_with_its_own_optimizer_trains_in_the_workflow(checkout: Checkout):
    done = checkout.snakemake("--cores", "2", "results/lit/tables/runs.csv", "--configfile", "lit.yaml")
    assert done.returncode == 0, done.stdout[-3000:]
    assert (
        "model.name: my_lit:LitClassifier: not called: validation_step; the data is that of the section `data`, and "
        "the validation loss is that of training_step in evaluation mode"
    ) in done.stdout.splitlines()
    run = RunDirectory((checkout.path / RUNS[0]).parent)
    spec = run.summary()["spec"]
    assert (spec["task"]["loss"], spec["optimizer"]["name"]) == ("module", "module")
    history = run.history(["validation_loss", "train_accuracy", "validation_accuracy"])
    assert history["validation_loss"].is_monotonic_decreasing
    # An edit of the module makes what it trains stale, and what its data module reads.
    module = checkout.path / "my_lit.py"
    module.write_text(module.read_text().replace("nn.Tanh()", "nn.GELU()"))
    assert {"prepare", "network", "train bs16-lr0.01-seed0"} <= checkout.stale_jobs("lit.yaml", target=RUNS[0])


@pytest.mark.parametrize(
    ("edit", "line"),
    [
        (
            ("optimizer: {name: module}\n", ""),
            "lit.yaml: optimizer.name: my_lit:LitClassifier has an optimizer of its own, configure_optimizers; write",
        ),
        (
            ("{loss: module, metrics: [accuracy]}", "{loss: cross_entropy}"),
            "lit.yaml: task.loss: my_lit:LitClassifier is a LightningModule with a loss of its own, training_step; ",
        ),
    ],
    ids=["optimizer", "loss"],
)
def test_check_asks_for_what_the_study_leaves_open(checkout: Checkout, edit: tuple[str, str], line: str):
    (checkout.path / "open.yaml").write_text(STUDY.replace(*edit))
    done = run_command(checkout, "check", "open.yaml")
    assert done.returncode == 1
    assert done.stderr.startswith(line.replace("lit.yaml", "open.yaml"))
    assert len(done.stderr.splitlines()) == 1


def test_verify_names_what_does_not_hold_and_writes_nothing(checkout: Checkout):
    study = STUDY.replace("name: lit", "name: broken").replace("LitClassifier", "LitContrastive")
    (checkout.path / "broken.yaml").write_text(study.replace(", metrics: [accuracy]", ""))
    done = run_command(checkout, "verify", "broken.yaml")
    assert done.returncode == 1
    assert done.stderr == "broken.yaml: does not hold: network and loss\n"
    lines = done.stdout.splitlines()
    assert lines[0] == "broken.yaml: batch size 16, learning rate 0.01; 84 training examples"
    assert lines[1].startswith("does not hold  network and loss: task.loss: module is not a mean over examples: 8")
    assert {line[:11] for line in lines[2:]} == {"not checked"}
    assert not (checkout.path / "results" / "broken").exists()


def run_command(checkout: Checkout, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "batchscape", *arguments]
    return subprocess.run(command, cwd=checkout.path, env=os.environ, capture_output=True, text=True, timeout=300)
