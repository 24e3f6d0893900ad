"""Arms: rules from batch size to learning rate and other hyperparameters."""

from collections.abc import Callable
from typing import Any

import pytest

from batchscape.study.study import Study


def settings_of(arms: dict[str, Any], **sections: Any) -> dict[str, list[str]]:
    grid = {"batch_sizes": [256, 32, 64], "learning_rates": [0.01, 0.02, 0.08], "seeds": [0, 1]}
    return dict(Study.from_mapping({"name": "s", "grid": grid, "arms": arms, **sections}, "s").plan.settings_by_arm)


def test_built_in_arms_scale_the_rate_with_the_batch_size():
    assert settings_of({}) == {
        "fixed": ["bs32-lr0.01", "bs64-lr0.01", "bs256-lr0.01"],
        "linear": ["bs32-lr0.01", "bs64-lr0.02", "bs256-lr0.08"],
        "sqrt": ["bs32-lr0.01", "bs64-lr0.0141421", "bs256-lr0.0282843"],
        "tuned": ["bs32-lrtuned", "bs64-lrtuned", "bs256-lrtuned"],
        "high": ["bs32-lr0.08", "bs64-lr0.08", "bs256-lr0.08"],
    }


@pytest.mark.parametrize(
    ("arm", "settings"),
    [
        (
            {"rule": "linear", "base_learning_rate": 0.3, "base_batch_size": 96},
            ["bs32-lr0.1", "bs64-lr0.2", "bs256-lr0.8"],
        ),
        (
            {"rule": "sqrt", "base_learning_rate": 0.2, "base_batch_size": 256},
            ["bs32-lr0.0707107", "bs64-lr0.1", "bs256-lr0.2"],
        ),
        ({"rule": "constant", "base_learning_rate": 0.5}, ["bs32-lr0.5", "bs64-lr0.5", "bs256-lr0.5"]),
        ({"learning_rates": {256: 0.3, 32: 0.1}}, ["bs32-lr0.1", "bs256-lr0.3"]),
        (
            {"rule": "linear", "warmup": {"epochs": 5}},
            ["bs32-lr0.01-warmup5", "bs64-lr0.02-warmup5", "bs256-lr0.08-warmup5"],
        ),
    ],
    ids=str,
)
def test_custom_arm_is_a_rule_or_a_mapping(arm: dict[str, Any], settings: list[str]):
    found = settings_of({"mine": arm})
    assert found["mine"] == settings
    assert list(found) == ["fixed", "linear", "sqrt", "mine", "tuned", "high"]


def test_partial_section_of_a_built_in_arm_changes_only_its_keys():
    found = settings_of({"linear": {"warmup": {"epochs": 2}}, "sqrt": {"enabled": False}})
    assert found["linear"] == ["bs32-lr0.01-warmup2", "bs64-lr0.02-warmup2", "bs256-lr0.08-warmup2"]
    assert list(found) == ["fixed", "linear", "tuned", "high"]


def test_linear_arm_of_a_grid_of_powers_of_two_adds_no_runs(study: Callable):
    without = study("name: s\narms: {linear: {enabled: false}, sqrt: {enabled: false}}")
    assert study("name: s\narms: {sqrt: {enabled: false}}").runs == without.runs


def test_run_with_warmup_has_its_own_name(study: Callable):
    runs = study("name: s\narms: {warm: {rule: constant, warmup: {epochs: 5}}}").runs
    assert {"bs32-lr0.01-seed0", "bs32-lr0.01-warmup5-seed0"} <= set(runs)


ADAMW = {"name": "AdamW", "arguments": {"weight_decay": 0.1, "betas": [0.95, 0.99]}}


@pytest.mark.parametrize(
    ("arm", "settings"),
    [
        (
            {"rule": "sde"},
            [
                "bs32-lr0.01",
                "bs64-lr0.0141421-beta1_0.9-beta2_0.98-eps7.07107e-09",
                "bs256-lr0.0282843-beta1_0.6-beta2_0.92-eps3.53553e-09",
            ],
        ),
        ({"rule": "half_life"}, ["bs32-lr0.01", "bs64-lr0.01-beta2_0.9801", "bs256-lr0.01-beta2_0.9227447"]),
        (
            {"rule": "sqrt", "keep_time_scale": True},
            ["bs32-lr0.01", "bs64-lr0.0141421-wd0.141421", "bs256-lr0.0282843-wd0.282843"],
        ),
        ({"rule": "linear", "keep_time_scale": True}, ["bs32-lr0.01", "bs64-lr0.02", "bs256-lr0.08"]),
        (
            {"exponents": {"learning_rate": 1, "weight_decay": -0.5, "eps": 1, "beta2": 1}},
            [
                "bs32-lr0.01",
                "bs64-lr0.02-beta2_0.98-eps2e-08-wd0.0707107",
                "bs256-lr0.08-beta2_0.92-eps8e-08-wd0.0353553",
            ],
        ),
        ({"exponents": {}, "base_learning_rate": 0.3}, ["bs32-lr0.3", "bs64-lr0.3", "bs256-lr0.3"]),
        (
            {"values": {256: {"learning_rate": 0.05, "beta2": 0.95}, 32: {"beta1": 0.95}, 64: {"weight_decay": 0}}},
            ["bs32-lr0.01", "bs64-lr0.01-wd0", "bs256-lr0.05-beta2_0.95"],
        ),
        (
            {"learning_rates": {64: 0.04, 256: 0.08}, "keep_time_scale": True},
            ["bs64-lr0.04-wd0.05", "bs256-lr0.08"],
        ),
        (
            {"rule": "sqrt", "keep_time_scale": True, "base_batch_size": 64, "base_learning_rate": 0.02},
            ["bs32-lr0.0141421-wd0.0707107", "bs64-lr0.02", "bs256-lr0.04-wd0.2"],
        ),
    ],
    ids=str,
)
def test_arm_scales_other_hyperparameters(arm: dict[str, Any], settings: list[str]):
    assert settings_of({"mine": arm}, optimizer=ADAMW)["mine"] == settings


def test_momentum_follows_an_exponent():
    sgd = {"arguments": {"momentum": 0.95}}
    found = settings_of({"mine": {"exponents": {"momentum": 1}}}, optimizer=sgd)
    assert found["mine"] == ["bs32-lr0.01", "bs64-lr0.01-momentum0.9", "bs256-lr0.01-momentum0.6"]


@pytest.mark.parametrize("name", ["constant", "linear", "sqrt", "sde", "half_life"])
def test_arm_that_is_named_like_a_rule_has_it(name: str):
    named = settings_of({name: {}, "other": {"rule": name}}, optimizer=ADAMW)
    assert named[name] == named["other"]
    assert settings_of({name: {"exponents": {"eps": 1}}}, optimizer=ADAMW)[name][1] == "bs64-lr0.01-eps2e-08"


def test_rate_with_more_than_six_digits_is_shared_with_the_fixed_arm():
    found = settings_of({"constant": {}}, comparison={"fixed_learning_rate": 0.0123456789})
    assert found["constant"] == found["fixed"]
    assert found["linear"][0] == found["fixed"][0]


@pytest.mark.parametrize(
    ("warmup", "suffix"),
    [
        ({"epochs": 5}, "5"),
        ({"steps": 500}, "500steps"),
        ({"examples": 20000}, "20000examples"),
        ({"fraction": 0.1}, "10pct"),
        ({"fraction": 0.07}, "7pct"),
        ({"fraction": 0.125}, "12.5pct"),
    ],
)
def test_warmup_of_an_arm_is_in_the_name_unless_it_is_that_of_the_study(warmup: dict[str, Any], suffix: str):
    arms = {"mine": {"rule": "constant", "warmup": warmup}}
    assert settings_of(arms)["mine"][0] == f"bs32-lr0.01-warmup{suffix}"
    shared = settings_of(arms, schedule={"warmup": warmup})
    assert shared["mine"] == shared["fixed"]


LION = {"name": "my_module:Lion"}
MISTAKES = [
    ({"sde": {}}, {}, "sde.rule: `sde` is a rule for Adam, and SGD has no beta1; use `linear`"),
    ({"half_life": {}}, {}, "half_life.rule: `half_life` is a rule for Adam, and SGD has no beta2; use another rule"),
    (
        {"sde": {}},
        LION,
        "sde.rule: the beta1 of my_module:Lion is not known; add `betas`, a list of two numbers, to opt",
    ),
    ({"m": {"exponents": {"eps": 1}}}, LION, "m.exponents.eps: the eps of my_module:Lion is not known; add `eps` to"),
    ({"m": {"exponents": {"momentum": 1}}}, ADAMW, "m.exponents.momentum: AdamW has no momentum; remove it"),
    ({"m": {"exponents": {"weight_decay": 1}}}, {}, "m.exponents.weight_decay: the weight_decay of the study is 0"),
    ({"m": {"exponents": {"lr": 1}}}, {}, "m.exponents.lr: is not a known key; known keys here: learning_rate, beta1"),
    ({"m": {"exponents": {"learning_rate": 11}}}, {}, "m.exponents.learning_rate: must be at most 10, got 11; write"),
    ({"m": {"exponents": 1}}, {}, "m.exponents: must be a section of keys and values, got 1; indent its keys below"),
    ({"m": {"rule": "sqrt", "keep_time_scale": True}}, {}, "m.keep_time_scale: the weight_decay of the study is 0;"),
    (
        {"m": {"exponents": {"weight_decay": 1}, "keep_time_scale": True}},
        ADAMW,
        "m.keep_time_scale: decides the weight decay, and so does exponents.weight_decay; remove one",
    ),
    (
        {"m": {"values": {32: {"weight_decay": 1}}, "keep_time_scale": True}},
        ADAMW,
        "m.keep_time_scale: decides the weight decay, and so does `values`; remove one",
    ),
    (
        {"m": {"rule": "sde", "base_batch_size": 8}},
        ADAMW,
        "m.rule: gives batch size 256 beta1 = -0.6, which must be between 0 and 1; change its `base_batch_size`, or "
        "remove 256 from grid.batch_sizes",
    ),
    ({"m": {"rule": "cube"}}, {}, "m.rule: must be 'constant', 'linear', 'sqrt', 'sde' or 'half_life', got 'cube'"),
    (
        {"m": {"rule": "linear", "values": {32: {}}}},
        {},
        "m.values: an arm needs either a `rule`, `exponents`, `learning_rates` or `values`; this one has `rule` and",
    ),
    ({"m": {}}, {}, "m.rule: an arm needs either a `rule`, `exponents`, `learning_rates` or `values`"),
    ({"m": {"values": {9: {"beta2": 0.5}}}}, ADAMW, "m.values: batch size 9 is not in grid.batch_sizes; add it there"),
    ({"m": {"values": {32: {"beta2": 1}}}}, ADAMW, "m.values[32].beta2: must be less than 1, got 1; write for example"),
    ({"m": {"values": {32: {"beta3": 1}}}}, ADAMW, "m.values[32].beta3: is not a known key; did you mean `beta2`?"),
    ({"m": {"values": {32: {"beta2": 0.9}}}}, {}, "m.values[32].beta2: SGD has no beta2; remove it, or use another"),
    (
        {"m": {"values": {32: {}}, "base_batch_size": 9}},
        {},
        "m.base_batch_size: needs a `rule`, but the arm has `values`",
    ),
    ({"linear": {"warmup_epochs": 5}}, {}, "linear.warmup_epochs: is now `warmup: {epochs: 5}`; rewrite it"),
    (
        {"linear": {"warmup": 5}},
        {},
        "linear.warmup: must be a section of keys and values, got 5; indent its keys below",
    ),
    ({"linear": {"warmup": {"epoch": 5}}}, {}, "linear.warmup.epoch: is not a known key; did you mean `epochs`?"),
    (
        {"linear": {"warmup": {"epochs": 3000}}},
        {},
        "linear.warmup: 3000 epochs is more than training.budget, 2000 epochs",
    ),
]


@pytest.mark.parametrize(("arms", "optimizer", "line"), MISTAKES, ids=[line.split(";")[0] for *_, line in MISTAKES])
def test_mistake_in_an_arm_is_one_line(
    arms: dict[str, Any], optimizer: dict[str, Any], line: str, refusal: Callable[..., str]
):
    message = refusal(settings_of, arms, optimizer=optimizer)
    assert message.startswith(f"s: arms.{line}"), message


def test_warmup_of_the_study_fits_its_budget(refusal: Callable[..., str]):
    message = refusal(settings_of, {}, schedule={"warmup": {"epochs": 9}}, training={"budget": {"epochs": 8}})
    assert message == "s: schedule.warmup: 9 epochs is more than training.budget, 8 epochs; lower it"
    assert settings_of({}, schedule={"warmup": {"epochs": 9}}, training={"budget": {"steps": 8}})
