"""A LightningModule with its own loss, optimizer and data in the real workflow."""

from pathlib import Path

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
RUN = "results/lit/runs/bs16-lr0.01-seed0/run.json"


def test_module_with_its_own_optimizer_trains_in_the_workflow(tmp_path: Path):
    checkout = Checkout.at(tmp_path / "checkout")
    module = checkout.path / "my_lit.py"
    module.write_bytes((PROJECT / "tests" / "helpers" / "lightning.py").read_bytes())
    (checkout.path / "lit.yaml").write_text(STUDY)
    done = checkout.snakemake("--cores", "2", RUN, "--configfile", "lit.yaml")
    assert done.returncode == 0, done.stdout[-3000:]
    assert (
        "model.name: my_lit:LitClassifier: not called: validation_step; the data is that of the section `data`, and "
        "the validation loss is that of training_step in evaluation mode"
    ) in done.stdout.splitlines()
    run = RunDirectory((checkout.path / RUN).parent)
    spec = run.summary()["spec"]
    assert (spec["task"]["loss"], spec["optimizer"]["name"]) == ("module", "module")
    history = run.history(["validation_loss", "train_accuracy", "validation_accuracy"])
    assert history["validation_loss"].is_monotonic_decreasing
    # An edit of the module changes what its data is, and what it trains.
    assert checkout.stale_jobs("lit.yaml", target=RUN) == set()
    module.write_text(module.read_text().replace("nn.Tanh()", "nn.GELU()"))
    assert checkout.stale_jobs("lit.yaml", target=RUN) == {"prepare", "network", "train bs16-lr0.01-seed0"}
