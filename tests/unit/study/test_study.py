"""The study loads fast, and knows the user's code that its results depend on."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import batchscape


def test_study_loads_no_numeric_library():
    code = """
import sys
import batchscape.study.study, batchscape.study.fingerprint
heavy = {"numpy", "torch", "pandas", "pytorch_lightning", "optuna", "sklearn", "safetensors"} & set(sys.modules)
sys.exit(f"loaded: {sorted(heavy)}" if heavy else 0)
"""
    library = str(Path(batchscape.__file__).parents[1])
    subprocess.run([sys.executable, "-c", f"import sys; sys.path.insert(0, {library!r})\n{code}"], check=True)


def test_own_code_of_network_loss_metric_and_optimizer_counts_for_staleness(
    study: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: Callable
):
    for name in ("my_net", "my_loss", "my_metric", "my_optimizer"):
        (tmp_path / f"{name}.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    checked = study(
        "name: s\nmodel: {name: 'my_net:Net'}\ntask: {loss: 'my_loss:loss', metrics: ['my_metric:metric']}\n"
        "optimizer: {name: 'my_optimizer:Lion'}"
    )
    assert {file.stem for file in checked.custom_training_files} == {"my_net", "my_loss", "my_metric", "my_optimizer"}
    missing = study("name: s\noptimizer: {name: 'my_missing:Lion'}")
    assert "optimizer.name: there is no module my_missing" in refusal(missing.require_files, "study.yaml")
