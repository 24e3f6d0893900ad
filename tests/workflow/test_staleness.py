"""An edit reruns exactly what it makes stale: no result is out of date, and nothing trains for nothing."""

import copy
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from batchscape.config.base import Section
from batchscape.study import FIGURES, TABLES, Study
from tests.workflow.conftest import PROJECT, Checkout

pytestmark = pytest.mark.slow

SMOKE = Study.from_file(PROJECT / "config" / "smoke.yaml")
TRAIN = {f"train {run}" for run in SMOKE.runs}
ANALYSES = {f"analyse {name}" for name in ("runs", "history", "distance", "epoch_distance", "update_norms")}
ALL_TABLES = {f"table {name}" for name in TABLES}
ALL_FIGURES = {f"figure {name}" for name in FIGURES}
AGGREGATED = ANALYSES | ALL_TABLES | ALL_FIGURES
FIXED_LR = {"table fixed_lr"} | {
    f"figure {name}"
    for name in ("curves_fixed_lr", "convergence", "distance_by_layer", "epoch_distance", "update_norms")
}


def runs(batch_sizes: list[int], rates: list[str], seeds: list[int]) -> set[str]:
    return {f"train bs{b}-lr{rate}-seed{s}" for b in batch_sizes for rate in rates for s in seeds}


# For each key of a study file: what the key becomes, and the exact set of jobs that this makes stale.
EDITS: dict[str, list[tuple[Any, set[str]]]] = {
    "name": [("another", {"prepare"} | TRAIN | AGGREGATED)],
    "data.source": [("digits", set())],
    "data.validation_fraction": [(0.25, {"prepare"} | TRAIN | AGGREGATED)],
    "data.split_seed": [(1, {"prepare"} | TRAIN | AGGREGATED)],
    "grid.batch_sizes": [
        ([64, 96, 128, 256], runs([96], ["0.02", "0.08"], [0, 1]) | AGGREGATED),
        ([64, 256], AGGREGATED),
        ([256, 128, 64], set()),
    ],
    "grid.learning_rates": [([0.02, 0.04, 0.08], runs([64, 128, 256], ["0.04"], [0, 1]) | AGGREGATED)],
    "grid.seeds": [
        ([0, 1, 2], runs([64, 128, 256], ["0.02", "0.08"], [2]) | AGGREGATED),
        ([0], AGGREGATED),
    ],
    "model.name": [("vgg", set())],
    "model.channels": [([4, 4], TRAIN | AGGREGATED)],
    "model.dense": [([], TRAIN | AGGREGATED)],
    "training.max_epochs": [(6, TRAIN | AGGREGATED)],
    "training.patience": [(3, TRAIN | AGGREGATED)],
    "training.momentum": [(0.5, TRAIN | AGGREGATED), (0, set())],
    "training.weight_decay": [(0.001, TRAIN | AGGREGATED)],
    "training.snapshots": [([1, 2], TRAIN | AGGREGATED)],
    "training.accelerator": [("cpu", TRAIN | AGGREGATED)],
    "comparison.fixed_lr": [
        (0.08, FIXED_LR),
        (0.01, runs([64, 128, 256], ["0.01"], [0, 1]) | AGGREGATED),
    ],
    "comparison.high_lr": [
        (0.02, {"figure curves_high_lr"}),
        (0.16, runs([64, 128, 256], ["0.16"], [0, 1]) | AGGREGATED),
    ],
    "comparison.small_batch": [(64, set()), (128, {"figure epoch_distance"})],
    "comparison.large_batch": [(256, set()), (128, {"table epoch_distance", "figure epoch_distance"})],
}

# For each part of the library: what an edit of it makes stale. What imports what decides, so these are examples of
# every layer; the first ones must not touch any training.
MODULES = {
    "report/figures/lr_effect.py": {"figure lr_effect"},
    "report/figures/style.py": ALL_FIGURES,
    "report/figures/loss_curves.py": {"figure curves_fixed_lr", "figure curves_high_lr"},
    "report/tables/best_lr.py": {"table best_lr", "figure lr_effect"},
    "report/tables/epoch_distance.py": {"table epoch_distance", "figure epoch_distance"},
    "analysis/update_norms.py": {"analyse update_norms", "table update_norms", "figure update_norms"},
    "analysis/distance.py": {"analyse distance", "table distance", "figure distance", "figure distance_by_layer"},
    "frames.py": AGGREGATED,
    "config/comparison.py": set(),
    "config/grid.py": set(),
    "study.py": set(),
    "fingerprint.py": set(),
    "models.py": TRAIN | AGGREGATED,
    "training/batches.py": TRAIN | AGGREGATED,
    "config/training.py": TRAIN | AGGREGATED,
    "data/digits.py": {"prepare"} | TRAIN | AGGREGATED,
}


def keys(section: type[Section], prefix: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from keys(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def edited(path: str, value: Any) -> str:
    """The smoke study with one key changed, as YAML."""
    yaml = YAML(typ="safe", pure=True)
    study = copy.deepcopy(yaml.load((PROJECT / "config" / "smoke.yaml").read_text()))
    *sections, key = path.split(".")
    place = study
    for section in sections:
        place = place.setdefault(section, {})
    place[key] = value
    stream = io.StringIO()
    yaml.dump(study, stream)
    return stream.getvalue()


@contextmanager
def put_back(path: Path) -> Iterator[Path]:
    """Let a test edit a file of the finished study's checkout."""
    before = path.read_bytes()
    try:
        yield path
    finally:
        path.write_bytes(before)


def test_every_key_has_an_edit():
    assert set(EDITS) == set(keys(Study))


def test_a_second_invocation_has_nothing_to_do(finished: Checkout):
    assert finished.stale("config/smoke.yaml") == set()


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [pytest.param(path, value, jobs, id=f"{path}={value}") for path, edits in EDITS.items() for value, jobs in edits],
)
def test_an_edit_of_a_key_reruns_exactly_what_depends_on_it(
    finished: Checkout, tmp_path: Path, path: str, value: Any, expected: set[str]
):
    config = tmp_path / "edited.yaml"
    config.write_text(edited(path, value))
    assert finished.stale(config) == expected


def test_order_comments_and_spelled_out_defaults_rerun_nothing(finished: Checkout, tmp_path: Path):
    study = (PROJECT / "config" / "smoke.yaml").read_text()
    config = tmp_path / "same.yaml"
    config.write_text(
        "# a comment\n"
        + study.replace("fixed_lr: 0.02", "fixed_lr: 2e-2").replace("patience: 2", "patience: 2\n  weight_decay: 0.0")
    )
    assert finished.stale(config) == set()


@pytest.mark.parametrize(("module", "expected"), [pytest.param(m, e, id=m) for m, e in MODULES.items()])
def test_an_edit_of_a_module_reruns_the_rules_that_use_it(finished: Checkout, module: str, expected: set[str]):
    with put_back(finished.path / "src" / "batchscape" / module) as file:
        file.write_text(file.read_text() + "\nEDITED = 1\n")
        assert finished.stale("config/smoke.yaml") == expected


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("prepare.py", {"prepare"} | TRAIN | AGGREGATED),
        ("train.py", TRAIN | AGGREGATED),
        ("analyse.py", AGGREGATED),
        ("table.py", ALL_TABLES | ALL_FIGURES),
        ("figure.py", ALL_FIGURES),
    ],
)
def test_an_edit_of_a_script_reruns_its_rules(finished: Checkout, script: str, expected: set[str]):
    with put_back(finished.path / "workflow" / "scripts" / script) as file:
        file.write_text(file.read_text() + "\nEDITED = 1\n")
        # Tables that no script edit reaches otherwise: all figures draw from a table or an analysis.
        assert finished.stale("config/smoke.yaml") == expected


def test_touched_and_commented_code_reruns_nothing(finished: Checkout):
    files = [
        file
        for folder in ("src", "workflow", "profiles", "envs", "config")
        for file in (finished.path / folder).rglob("*")
        if file.suffix in {".py", ".smk", ".yaml"} or file.name == "Snakefile"
    ]
    assert len(files) > 40
    before = {file: file.read_bytes() for file in files}
    try:
        for file in files:
            file.write_bytes(before[file] + b"\n# a comment\n\n")
        assert finished.stale("config/smoke.yaml") == set()
    finally:
        for file, content in before.items():
            file.write_bytes(content)
