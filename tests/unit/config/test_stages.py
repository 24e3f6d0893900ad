"""Batch size schedules: stages that are listed, and stages that replace the decay of the learning rate."""

import json
import re
from collections.abc import Callable

import pytest

from batchscape.config.budget import Budget
from batchscape.config.schedule import ScheduleConfig
from batchscape.config.settings import SETTING_PATTERN
from batchscape.config.stages import GrowthConfig, grow
from batchscape.optim.schedules import factor

DECAYS = ["linear", "cosine", "sqrt"]
STUDY = """
name: s
grid: {batch_sizes: [16, 32], learning_rates: [0.1], seeds: [0]}
comparison: {fixed_learning_rate: 0.1, high_learning_rate: 0.1}
tuning: {enabled: false}
schedule: {decay: cosine}
"""
BUDGET = Budget(epochs=2000)
AT_9 = "{start: {steps: 9}, batch_size_factor: 2}"


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("settings", [{}, {"decay_fraction": 0.4}, {"final_factor": 0.05}], ids=str)
def test_the_batch_grows_where_the_rate_would_fall(decay: str, settings: dict):
    schedule, total = ScheduleConfig(decay=decay, **settings), 100_000
    stages = grow(GrowthConfig(factor=2), schedule, 32, BUDGET)
    assert [stage.batch_size_factor for stage in stages] == [2**k for k in range(1, len(stages) + 1)]
    assert all(stage.learning_rate_factor == 1 for stage in stages)
    assert len(stages) >= 3
    for k, stage in enumerate(stages, start=1):
        scheduled = factor(1 + round(stage.start.fraction * total), total, 0, schedule)
        assert scheduled == pytest.approx(2.0**-k, rel=0.02), k


def test_the_rate_falls_by_the_root_for_adam():
    stages = grow(GrowthConfig(factor=4, rule="sqrt"), ScheduleConfig(decay="linear"), 8, BUDGET)
    assert [stage.learning_rate_factor for stage in stages] == [4.0**-0.5, 4.0**-1, 4.0**-1.5][: len(stages)]


@pytest.mark.parametrize("rule", ["linear", "sqrt"])
def test_at_the_largest_batch_size_the_rate_falls_instead(rule: str):
    growth = GrowthConfig(factor=2, rule=rule, max_batch_size=128)
    stages = grow(growth, ScheduleConfig(decay="cosine"), 32, BUDGET)
    factors = [stage.batch_size_factor for stage in stages]
    assert factors == [2, 4, *[4] * (len(stages) - 2)]
    assert len(stages) > 3
    for k, stage in enumerate(stages, start=1):
        # The noise of SGD is proportional to rate/batch size, that of Adam to rate/√batch size.
        noise = stage.learning_rate_factor / stage.batch_size_factor ** (0.5 if rule == "sqrt" else 1)
        assert noise == pytest.approx(2.0**-k, rel=1e-5)


@pytest.mark.parametrize(
    ("warmup", "budget", "fraction"),
    [
        ({"fraction": 0.2}, {"epochs": 20}, 0.2),
        ({"epochs": 5}, {"epochs": 20}, 0.25),
        ({"examples": 500}, {"examples": 1000}, 0.5),
        ({"steps": 30}, {"steps": 40}, 0.75),
    ],
    ids=str,
)
def test_growth_begins_after_the_warm_up(warmup: dict, budget: dict, fraction: float):
    schedule = ScheduleConfig.model_validate({"decay": "linear", "warmup": warmup})
    starts = [stage.start.fraction for stage in grow(GrowthConfig(), schedule, 32, Budget(**budget))]
    assert starts[0] == pytest.approx(fraction + (1 - fraction) * 0.5)


def test_runs_have_the_stages_of_their_arm(study: Callable):
    checked = study(
        STUDY
        + "arms:\n"
        + "  jump:\n"
        + "    rule: constant\n"
        + "    stages: [{start: {fraction: 0.5}, batch_size_factor: 4, learning_rate_factor: 2}]\n"
        + "  adam: {rule: constant, growth: {rule: sqrt, max_batch_size: 64}}\n"
    )
    names = {arm: [run.setting for run in runs] for arm, runs in checked.runs_by_arm.items()}
    assert names["jump"] == ["bs16-lr0.1-x4at50pctlr2", "bs32-lr0.1-x4at50pctlr2"]
    assert names["adam"] == ["bs16-lr0.1-grow2max64sqrt", "bs32-lr0.1-grow2max64sqrt"]
    jump, adam = (checked.runs_by_arm[arm][0] for arm in ("jump", "adam"))
    assert checked.recipe(jump)[1].decay == "cosine"
    assert checked.recipe(adam)[1].decay == "constant"
    assert checked.recipe(adam)[2] == grow(GrowthConfig(rule="sqrt", max_batch_size=64), checked.schedule, 16, BUDGET)
    assert (checked.max_batch_size(jump), checked.max_batch_size(adam)) == (64, 64)


@pytest.mark.parametrize(
    ("arm", "key", "message"),
    [
        ("{rule: constant, growth: {factor: 1}}", "arms.a.growth.factor: ", "at least 2, got 1"),
        ("{rule: constant, stages: []}", "arms.a.stages: ", "must not be empty"),
        (
            "{rule: constant, growth: {}, stages: [{start: {steps: 1}, batch_size_factor: 2}]}",
            "arms.a.growth: ",
            "decides the stages, and so does `stages`; remove one",
        ),
        ("{rule: constant, stages: [{start: {steps: 1}}]}", "arms.a.stages[0].batch_size_factor: ", "is missing"),
        (
            f"{{rule: constant, stages: [{AT_9}, {AT_9}]}}",
            "arms.a.stages[1].start: ",
            "9 steps is not after the stage before it, 9 steps",
        ),
        (
            "{rule: constant, stages: [{start: {fraction: 0.5}, batch_size_factor: 2}, "
            "{start: {epochs: 2}, batch_size_factor: 4}]}",
            "arms.a.stages[1].start: ",
            "2 epochs is not after the stage before it; list stages in their order",
        ),
        (
            "{rule: constant, growth: {}, warmup: {steps: 9}}",
            "arms.a.growth: ",
            "begins after the warm-up, which is in steps, and training.budget in epochs; give the warm-up in the same",
        ),
        (
            "{rule: constant, stages: [{start: {epochs: 2000}, batch_size_factor: 2}]}",
            "arms.a.stages[0].start: ",
            "2000 epochs is not within training.budget, 2000 epochs; lower it, or remove the stage",
        ),
        (
            "{rule: constant, stages: [{start: {fraction: 1}, batch_size_factor: 2}]}",
            "arms.a.stages[0].start: ",
            "100 % of the budget is not within training.budget, 2000 epochs",
        ),
        (
            "{rule: constant, stages: [{start: {steps: 9}, batch_size_factor: 999}]}",
            "arms.a: ",
            "has stages with a batch size of 31968, which is more than the 1438 training images",
        ),
    ],
)  # fmt: skip
def test_mistakes_give_one_line(arm: str, key: str, message: str, study: Callable, refusal: Callable):
    line = refusal(study, STUDY + f"arms: {{a: {arm}}}")
    assert "\n" not in line
    assert f": {key}" in line and message in line


@pytest.mark.parametrize(
    "arm",
    [
        "rule: sde",
        "rule: constant, growth: {factor: 2}",
        "learning_rates: {512: 0.1}",
        "rule: linear, warmup: {epochs: 2001}",
        "rule: constant, stages: [{start: {epochs: 2000}, batch_size_factor: 2}]",
    ],
)
def test_an_arm_that_is_not_enabled_need_not_fit_the_study(arm: str, study: Callable, refusal: Callable):
    text = STUDY.replace("cosine", "constant") + f"arms: {{a: {{{arm}}}}}\n"
    assert "arms.a." in refusal(study, text)
    assert "a" not in study(text.replace("}}\n", ", enabled: false}}\n")).runs_by_arm


def test_growth_needs_a_decay(study: Callable, refusal: Callable):
    line = refusal(study, "name: s\narms: {a: {rule: constant, growth: {}}}")
    assert line.endswith("arms.a.growth: needs a decay that it replaces; set schedule.decay, such as `cosine`")


def test_runs_of_a_batch_warm_up_are_those_to_branch_from_without_known_stages(study: Callable):
    checked = study(
        STUDY.replace("cosine", "constant")
        + "arms: {slow: {rule: constant, warmup: {epochs: 2}}}\n"
        + "branching: {enabled: true, batch_warmup: true, factors: [2, 4], "
        + "settings: [bs32-lr0.1-warmup2, bs16-lr0.1]}\n"
    )
    runs = checked.runs_by_arm["batch_warmup"]
    assert [run.name for run in runs] == ["bs32-lr0.1-warmup2-batchwarmup-seed0", "bs16-lr0.1-batchwarmup-seed0"]
    assert all(re.fullmatch(SETTING_PATTERN, run.setting) for run in runs)
    assert [checked.max_batch_size(run) for run in runs] == [4 * 32, 4 * 16]
    for run in runs:
        spec = json.loads(checked.specs.run(run.name))
        base = json.loads(checked.specs.run(run.name.replace("-batchwarmup", "")))
        assert base.pop("stages") == []
        assert spec == base
    disabled = study(STUDY.replace("cosine", "constant") + "branching: {batch_warmup: true}\n")
    assert "batch_warmup" not in disabled.runs_by_arm
    assert "batch_schedule" not in disabled.plan.tables
    assert "batch_schedule" in checked.plan.tables
