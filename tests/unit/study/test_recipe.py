"""The recipe of a study in words."""

import json
from typing import Any

import pytest

from batchscape.config.loading import merge_mappings
from batchscape.config.training import TrainingConfig
from batchscape.config.tuning import SearchSpec
from batchscape.study.recipe import describe_length, describe_recipe
from batchscape.study.registry import TABLES
from batchscape.study.study import Study

MODERN = {
    "optimizer": {"name": "AdamW", "arguments": {"weight_decay": 0.1}, "clip_norm": 1},
    "schedule": {"decay": "cosine", "final_factor": 0.1, "warmup": {"fraction": 0.1}},
    "training": {"budget": {"examples": 3000000}, "patience": None},
}


def study_of(**sections: Any) -> Study:
    return Study.from_mapping({"name": "s", **sections}, "s")


def words_of(**sections: Any) -> str:
    study = study_of(**sections)
    return describe_recipe(study.optimizer, study.schedule, study.averaging, study.training)


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({}, "plain SGD at a constant learning rate"),
        (
            {"model": {"name": "my_lit:Lit"}, "optimizer": {"name": "module"}},
            "the optimizer of the module at a constant learning rate",
        ),
        (
            MODERN,
            "AdamW (weight_decay 0.1) with cosine decay to 10 % after a warm-up of 10 % of the budget, gradients "
            "clipped at 1, for 3,000,000 examples",
        ),
        (
            {"optimizer": {"arguments": {"momentum": 0.9, "nesterov": True, "weight_decay": 0}}},
            "SGD (momentum 0.9, nesterov on) at a constant learning rate",
        ),
        (
            {"optimizer": {"name": "Adam", "arguments": {"betas": [0.9, 0.95]}}, "schedule": {"warmup": {"epochs": 1}}},
            "Adam (betas 0.9 and 0.95) at a constant learning rate after a warm-up of 1 epoch",
        ),
        (
            {"schedule": {"decay": "sqrt", "decay_fraction": 0.2, "warmup": {"steps": 2000}}},
            "plain SGD with 1 − √x decay to 0 % over the last 20 % of the budget after a warm-up of 2,000 steps",
        ),
        (
            {
                "averaging": {"half_life": 20000},
                "optimizer": {"name": "my_module:Lion", "decay_biases_and_norms": False},
            },
            "my_module:Lion at a constant learning rate, biases and normalization layers without weight decay, an "
            "average of the weights with a half-life of 20,000 examples",
        ),
    ],
    ids=str,
)
def test_recipe_in_words(sections: dict[str, Any], words: str):
    assert words_of(**sections) == words


@pytest.mark.parametrize(
    ("sections", "is_plain"),
    [
        ({}, True),
        ({"optimizer": {"arguments": {"momentum": 0, "dampening": 0.0, "nesterov": False}}}, True),
        ({"training": {"patience": None}, "averaging": {"half_life": 9}}, True),
        ({"schedule": {"decay_fraction": 0.2, "final_factor": 0.5}}, True),
        ({"optimizer": {"arguments": {"momentum": 0.9}}}, False),
        ({"optimizer": {"name": "Adam"}}, False),
        ({"optimizer": {"clip_norm": 5}}, False),
        ({"schedule": {"warmup": {"steps": 1}}}, False),
        ({"schedule": {"decay": "linear"}}, False),
    ],
    ids=str,
)
def test_recipe_is_named_unless_claims_were_made_for_it(sections: dict[str, Any], is_plain: bool):
    study = study_of(**sections)
    assert study.specs.recipe == ("" if is_plain else words_of(**sections))
    assert json.loads(study.specs.report)["recipe"] == study.specs.recipe
    assert json.loads(study.specs.artifact(TABLES["claims"]))["recipe"] == study.specs.recipe


@pytest.mark.parametrize(
    "section",
    [{"optimizer": {"clip_norm": 2}}, {"schedule": {"final_factor": 0.2}}, {"averaging": {"half_life": 9}}],
    ids=str,
)
def test_each_section_of_the_recipe_makes_all_runs_stale(section: dict[str, Any]):
    one, other = study_of(**MODERN), study_of(**merge_mappings(MODERN, section))
    assert list(one.runs) == list(other.runs)
    assert all(one.specs.run(name) != other.specs.run(name) for name in one.runs)
    assert (one.specs.network != other.specs.network) == ("optimizer" in section)


def test_run_has_the_changes_of_its_arm():
    study = study_of(**MODERN, arms={"sde": {"warmup": {"steps": 7}}})
    name = next(name for name in study.runs if name.startswith("bs64-lr0.0141421-beta"))
    spec = json.loads(study.specs.run(name))
    assert spec["optimizer"]["arguments"] == {"weight_decay": 0.1, "betas": [0.8, 0.998], "eps": 7.07107e-9}
    assert spec["schedule"]["warmup"]["steps"] == 7
    plain = json.loads(study.specs.run("bs64-lr0.01-seed0"))
    assert plain["optimizer"] == study.optimizer.model_dump(mode="json")


def test_searches_and_timings_train_by_the_recipe_of_the_study():
    study = study_of(**MODERN, averaging={"half_life": 9}, tuning={"trial_budget": {"examples": 1000}})
    search, timing = json.loads(study.specs.search(64)), json.loads(study.specs.timing)
    for section in ("optimizer", "schedule"):
        expected = getattr(study, section).model_dump(mode="json")
        assert search[section] == expected
        assert all(run[section] == expected for run in timing["runs"])
    # It hardly takes time, so that an edit of it makes no timing stale.
    assert all(run["averaging"] == {"half_life": None} for run in timing["runs"])
    assert SearchSpec.model_validate_json(study.specs.search(64).replace('"tuning": {', '"tuning": {"enabled": true, '))


@pytest.mark.parametrize(
    ("patience", "checkpoints", "length"),
    [
        (None, [1, 2], "at equal epochs"),
        (1, [], "at equal epochs"),  # the second evaluation is at the end of the budget
        (2, [1, 2, 3], "to convergence"),  # those at checkpoints count too: the third one is after epoch 3
        (4, [1, 2, 3], "at equal epochs"),
        (1, [5, 10], "at equal epochs"),  # of the regular evaluations
    ],
)
def test_runs_are_compared_at_equal_lengths_if_patience_cannot_end_them(
    patience: int | None, checkpoints: list[int], length: str
):
    values = {"budget": {"epochs": 10}, "evaluate_every": {"epochs": 5}, "patience": patience}
    assert describe_length(TrainingConfig.model_validate({**values, "checkpoints": checkpoints})) == length
