"""Specs: what makes a job stale, and what does not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batchscape.config.run import RunSpec
from batchscape.study.registry import FIGURES
from batchscape.study.study import Study
from tests.helpers.study_files import (
    EACH_KIND,
    FULL,
    KINDS,
    SECTIONS,
    SELECTOR,
    full_mapping,
    keys_of,
    of_kind,
    sections_reversed,
)

# Slices: what makes a job stale.


def test_run_spec_round_trips(study: Callable):
    checked = study(FULL)
    spec = RunSpec.model_validate(json.loads(checked.specs.run("bs64-lr0.08-seed1")))
    assert (spec.batch_size, spec.learning_rate, spec.seed) == (64, 0.08, 1)
    assert (spec.model, spec.training) == (checked.model, checked.training)


@pytest.mark.parametrize(("tuning", "training", "budget"), [(60, 2000, 60), (60, 5, 5), (4, 5, 4)])
def test_trial_never_trains_longer_than_a_run(study: Callable, tuning: int, training: int, budget: int):
    checked = study(
        f"name: s\ntuning: {{trial_budget: {{epochs: {tuning}}}}}\ntraining: {{budget: {{epochs: {training}}}}}"
    )
    assert json.loads(checked.specs.search(32))["tuning"]["trial_budget"]["epochs"] == budget


def test_run_specs_are_unique(study: Callable):
    checked = study(FULL)
    assert len({checked.specs.run(name) for name in checked.runs}) == len(checked.runs) == 2 * 4 + 2 * 2 + 2 * 2


def test_order_of_keys_makes_nothing_stale(study: Callable):
    one, other = study(FULL), Study.from_mapping(sections_reversed(full_mapping()), "reversed")
    assert [one.specs.run(name) for name in one.runs] == [other.specs.run(name) for name in other.runs]
    assert one.specs.data == other.specs.data
    assert [one.specs.artifact(p) for p in FIGURES.values()] == [other.specs.artifact(p) for p in FIGURES.values()]


CHANGES = {
    "model": {"channels": [8, 4], "dense": [17]},
    "training": {
        "budget": {"epochs": 21},
        "patience": 4,
        "evaluate_every": {"epochs": 2},
        "reshuffle": False,
        "augment_flip": True,
        "augment_shift": 1,
        "precision": "bf16",
        "checkpoints": [1, 11],
        "accelerator": "auto",
    },
    "optimizer": {
        "name": "RMSprop",
        "arguments": {"momentum": 0.8},
        "decay_biases_and_norms": False,
        "clip_norm": 2.0,
    },
    "schedule": {"warmup": {"epochs": 2}, "decay": "linear", "decay_fraction": 0.25, "final_factor": 0.0},
    "averaging": {"half_life": 2000},
}


@pytest.mark.parametrize(("section", "key"), [(section, key) for section, keys in CHANGES.items() for key in keys])
def test_each_key_of_the_recipe_makes_all_runs_stale(section: str, key: str, study: Callable):
    one, other = study(FULL), study(FULL, {section: {key: CHANGES[section][key]}})
    assert list(one.runs) == list(other.runs)
    assert all(one.specs.run(name) != other.specs.run(name) for name in one.runs)


def test_every_key_of_the_recipe_has_a_change():
    for section, keys in CHANGES.items():
        known = set(type(getattr(Study.from_mapping(full_mapping(), "full"), section)).model_fields)
        # There is one network, so its name cannot change; its other keys are those of `test_each_key_of_each_kind…`.
        assert set(SECTIONS[section]) - set(keys) <= {"name"}
        assert section == "model" or known == set(keys)


@pytest.mark.parametrize(
    "overrides",
    [
        {"name": "other"},
        {"grid": {"batch_sizes": [16, 32, 64, 1024]}},
        {"grid": {"learning_rates": [0.5, 0.01]}},
        {"grid": {"seeds": [1, 2, 3]}},
        {"comparison": {"fixed_learning_rate": 0.02, "high_learning_rate": 0.5}},
        {"comparison": {"small_batch_size": None, "large_batch_size": None}},
    ],
    ids=str,
)
def test_remaining_runs_are_not_stale_when_the_study_changes(overrides: dict, study: Callable):
    one, other = study(FULL), study(FULL, overrides)
    remaining = one.runs.keys() & other.runs.keys()
    assert remaining
    assert all(one.specs.run(name) == other.specs.run(name) for name in remaining)


@pytest.mark.parametrize("change", [{"validation_fraction": 0.3}, {"split_seed": 6}], ids=str)
def test_each_key_of_data_makes_the_data_stale(change: dict, study: Callable):
    assert study(FULL, {"data": change}).specs.data != study(FULL).specs.data


@pytest.mark.parametrize(("section", "kind"), EACH_KIND)
def test_each_key_of_each_kind_makes_its_dependents_stale(section: str, kind: str):
    study = Study.from_mapping(of_kind(section, kind), "s")
    keys = keys_of(section, kind)
    assert {*keys, SELECTOR[section]} == set(type(getattr(study, section)).model_fields)

    def slices(study: Study) -> tuple[str, str, str]:
        return study.specs.data, study.specs.network, study.specs.run("bs32-lr0.01-seed0")

    for key, (value, other) in keys.items():
        if value == other:
            continue
        edited = slices(Study.from_mapping(of_kind(section, kind, **{key: other}), "s"))
        changed = [one != two for one, two in zip(slices(study), edited, strict=True)]
        assert changed == ([True, False, False] if section == "data" else [False, True, True]), key


@pytest.mark.parametrize("section", KINDS)
def test_another_kind_makes_its_dependents_stale(section: str):
    studies = [Study.from_mapping(of_kind(section, kind), "s") for kind in KINDS[section]]
    number = len({study.specs.data if section == "data" else study.specs.network for study in studies})
    assert number == len(KINDS[section])


LOSSES = {"classification": "cross_entropy", "regression": "huber", "language_model": "my_loss:loss"}
TASKS = {
    "classification": {"class_weights": "balanced", "label_smoothing": 0.1},
    "regression": {"huber_delta": 2.0, "outputs": 2},
    "language_model": {"label_smoothing": 0.1},
}


@pytest.mark.parametrize("task", TASKS)
def test_each_key_of_the_task_makes_network_and_runs_stale_but_not_the_data(task: str):
    def slices(**keys: Any) -> tuple[str, str, str]:
        source = {"classification": "digits", "regression": "diamonds", "language_model": "python_docs"}[task]
        model = "transformer" if task == "language_model" else "mlp"
        mapping = {"name": "s", "data": {"source": source}, "model": {"name": model}, "task": {"name": task, **keys}}
        study = Study.from_mapping(mapping, "s")
        assert {"loss", "metrics", *TASKS[task], "name"} == set(type(study.task).model_fields)
        return study.specs.data, study.specs.network, study.specs.run("bs32-lr0.01-seed0")

    for key, value in {"loss": LOSSES[task], "metrics": ["my_loss:metric"], **TASKS[task]}.items():
        # Only a loss of the user's own may have another number of outputs, and only one loss has a delta.
        shared = {"outputs": {"loss": "my_loss:loss"}, "huber_delta": {"loss": "huber"}}.get(key, {})
        changed = [one != two for one, two in zip(slices(**shared), slices(**shared, **{key: value}), strict=True)]
        assert changed == [False, True, True], key


def test_another_task_makes_the_data_stale():
    def data(**keys: Any) -> str:
        return Study.from_mapping({"name": "s", "data": {"source": "arrays", "path": "a.npy"}, **keys}, "s").specs.data

    one, *others = [data(task={"name": name}) for name in TASKS]
    assert len({one, *others}) == len(TASKS)
    assert data() == one


def test_figure_is_stale_only_when_its_compared_batch_sizes_change(study: Callable):
    figure = FIGURES["epoch_distance"]
    explicit = study(FULL).specs.artifact(figure)
    left_out = study(FULL, {"comparison": {"small_batch_size": None, "large_batch_size": None}})
    assert left_out.specs.artifact(figure) == explicit
    grown = study(FULL, {"grid": {"batch_sizes": [16, 32, 64]}})
    assert grown.specs.artifact(figure) == explicit
    assert study(FULL, {"comparison": {"fixed_learning_rate": 0.02}}).specs.artifact(figure) != explicit


def test_report_contains_the_complete_config(tmp_path: Path):
    study = Study.from_mapping(
        {
            "name": "x",
            "grid": {"learning_rates": [1e-5, 0.1]},
            "landscape": {"direction_seeds": [3, 4], "points_per_job": 7},
            "interpolation": {"enabled": False},
            "arms": {"mine": {"learning_rates": {32: 0.1, 256: 0.2}}},
        },
        "x",
    )
    (tmp_path / "x.yaml").write_text(json.loads(study.specs.report)["config"])
    assert Study.from_file(tmp_path / "x.yaml") == study


def test_files_that_are_found_beside_the_images_make_the_data_stale(tmp_path: Path):
    images = tmp_path / "emnist-train-images-idx3-ubyte"
    images.write_bytes(b"images")
    study = Study.from_mapping({"name": "x", "data": {"source": "idx", "path": str(images)}}, "x")
    before = study.specs.data_files
    for name in ("emnist-train-labels-idx1-ubyte", "emnist-train-labels-idx1-ubyte.gz", "emnist-mapping.txt"):
        (tmp_path / name).write_text("new")
        after = study.specs.data_files
        assert after != before, name
        before = after
    (tmp_path / "other.txt").write_text("not read")
    assert study.specs.data_files == before


@pytest.mark.parametrize(("trial", "shown"), [(5, "5 epochs"), (10, ""), (20, "")])
def test_report_knows_how_long_trials_are_that_are_shorter_than_runs(trial: int, shown: str):
    sections = {"training": {"budget": {"epochs": 10}}, "tuning": {"trial_budget": {"epochs": trial}}}
    study = Study.from_mapping({"name": "s", **sections}, "s.yaml")
    assert json.loads(study.specs.report)["trial_budget"] == shown
