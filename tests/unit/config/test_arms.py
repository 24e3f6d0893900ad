"""Arms: rules from batch size to learning rate."""

from collections.abc import Callable
from typing import Any

import pytest

from batchscape.study.study import Study


def settings_of(arms: dict[str, Any]) -> dict[str, list[str]]:
    grid = {"batch_sizes": [256, 32, 64], "learning_rates": [0.01, 0.02, 0.08], "seeds": [0, 1]}
    return dict(Study.from_mapping({"name": "s", "grid": grid, "arms": arms}, "s").plan.settings_by_arm)


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
            {"rule": "linear", "warmup_epochs": 5},
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
    found = settings_of({"linear": {"warmup_epochs": 2}, "sqrt": {"enabled": False}})
    assert found["linear"] == ["bs32-lr0.01-warmup2", "bs64-lr0.02-warmup2", "bs256-lr0.08-warmup2"]
    assert list(found) == ["fixed", "linear", "tuned", "high"]


def test_linear_arm_of_a_grid_of_powers_of_two_adds_no_runs(study: Callable):
    without = study("name: s\narms: {linear: {enabled: false}, sqrt: {enabled: false}}")
    assert study("name: s\narms: {sqrt: {enabled: false}}").runs == without.runs


def test_run_with_warmup_has_its_own_name(study: Callable):
    runs = study("name: s\narms: {warm: {rule: constant, warmup_epochs: 5}}").runs
    assert {"bs32-lr0.01-seed0", "bs32-lr0.01-warmup5-seed0"} <= set(runs)
