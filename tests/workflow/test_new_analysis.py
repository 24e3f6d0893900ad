"""A new analysis takes a module, a rule and a registration: the example in docs/architecture.md works as printed."""

import re
import shutil
import textwrap

import numpy as np
import pytest
import torch

from batchscape.config.run import RunSpec
from batchscape.data.prepared import read_prepared
from batchscape.io.frames import read_frame
from batchscape.io.run_directory import RunDirectory
from batchscape.models.build import build_network
from batchscape.study.study import Study
from tests.helpers.checkout import PROJECT, Checkout
from tests.helpers.objectives import images_of, labels_of

pytestmark = pytest.mark.slow

SMOKE = Study.from_file(PROJECT / "config" / "smoke.yaml")


def test_example_analysis_of_the_docs_works_and_makes_nothing_else_stale(finished: Checkout):
    section = (
        (PROJECT / "docs" / "architecture.md").read_text().partition("\n## An analysis\n")[2].partition("\n## ")[0]
    )
    module, rule, registration = map(textwrap.dedent, re.findall(r"```python\n(.*?)```", section, re.DOTALL))
    new_module = finished.path / "src/batchscape/analysis/gradient_norm.py"
    rules, registry = finished.path / "workflow/rules/analyze.smk", finished.path / "src/batchscape/study/registry.py"
    before = {file: file.read_text() for file in (rules, registry)}
    try:
        new_module.write_text(module)
        rules.write_text(f"{before[rules]}\n\n{rule}")
        registry.write_text(before[registry].replace("ANALYSES = {\n", f"ANALYSES = {{\n    {registration}"))
        jobs = {f"analyze bs{batch_size}-lr0.02: gradient_norm" for batch_size in (64, 128, 256)}
        assert finished.stale_jobs("config/smoke.yaml") == {*jobs, "gather tables/gradient_norm", "report"}
        table = "results/smoke/tables/gradient_norm.csv"
        done = finished.snakemake(table, "--cores", "2", "--configfile", "config/smoke.yaml")
        assert done.returncode == 0, done.stdout[-4000:]
        norms = read_frame(finished.path / table).set_index(["run", "checkpoint"])["gradient_norm"]
    finally:
        new_module.unlink()
        for path in list((finished.path / "results").rglob("gradient_norm*")):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        for file, text in before.items():
            file.write_text(text)
    assert finished.stale_jobs("config/smoke.yaml") == set()
    assert {run for run, _ in norms.index} == {run.name for run in SMOKE.runs_by_arm["fixed"]}
    for run, checkpoint in norms.index:
        assert norms[run, checkpoint] == pytest.approx(gradient_norm(finished, run, checkpoint), rel=1e-4)


def gradient_norm(checkout: Checkout, run: str, checkpoint: str) -> float:
    """Compute the norm with plain PyTorch."""
    data = read_prepared(checkout.path / SMOKE.paths.prepared_data)
    directory = RunDirectory((checkout.path / SMOKE.paths.run_file(run, "run.json")).parent)
    spec = RunSpec.model_validate(directory.summary()["spec"])
    network = build_network(spec.model, data.spec, 1, spec.seed)
    torch.nn.utils.vector_to_parameters(torch.from_numpy(directory.weights(checkpoint).vector), network.parameters())
    outputs = network(torch.from_numpy(images_of(data.train).astype(np.float32) / 255))
    labels = torch.from_numpy(labels_of(data.train).astype(np.float32))[:, None]
    torch.nn.functional.binary_cross_entropy_with_logits(outputs, labels).backward()
    return float(torch.cat([parameter.grad.flatten() for parameter in network.parameters()]).norm())
