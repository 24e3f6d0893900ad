"""A checked study file: its defaults, its settings and its runs."""

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscape.config.budget import Budget, Warmup
from batchscape.config.scaling import HYPERPARAMETERS
from batchscape.config.settings import SETTING_PATTERN
from batchscape.config.study import Run
from batchscape.study.study import Study


def test_name_alone_gives_the_documented_defaults(study: Callable):
    checked = study("name: s")
    assert checked.grid.batch_sizes == (32, 64, 128, 256)
    assert checked.grid.learning_rates == (0.01, 0.02, 0.04, 0.08)
    assert checked.grid.seeds == (0, 1, 2)
    assert (checked.data.validation_fraction, checked.data.split_seed) == (0.2, 0)
    assert (checked.model.channels, checked.model.dense) == ((8, 16), (32,))
    assert (checked.optimizer.name, checked.optimizer.arguments) == ("SGD", {})
    assert (checked.training.budget, checked.training.evaluate_every) == (Budget(epochs=2000), Budget(epochs=1))
    assert (checked.small_batch_size, checked.large_batch_size) == (32, 256)
    # √ scaling asks for two settings that are not in the grid, the tuned arm for one of each batch size.
    assert len(checked.runs) == 4 * 4 * 3 + 2 * 3 + 4 * 3


def test_partial_section_has_defaults_for_other_keys(study: Callable):
    checked = study("name: s\ntraining: {patience: 4}")
    assert checked.training.patience == 4
    assert checked.training.budget == study("name: s").training.budget


def test_empty_hidden_layers_and_checkpoints_are_valid(study: Callable):
    checked = study("name: s\nmodel: {dense: []}\ntraining: {checkpoints: []}")
    assert (checked.model.dense, checked.training.checkpoints) == ((), ())


def test_grid_with_one_batch_size_is_valid(study: Callable):
    checked = study("name: s\ngrid: {batch_sizes: [32]}")
    assert (checked.small_batch_size, checked.large_batch_size) == (32, 32)


def test_small_and_large_batch_size_can_be_chosen(study: Callable):
    checked = study("name: s\ncomparison: {small_batch_size: 64, large_batch_size: 128}")
    assert (checked.small_batch_size, checked.large_batch_size) == (64, 128)


def test_small_and_large_default_to_the_extremes_of_an_unsorted_grid(study: Callable):
    checked = study("name: s\ngrid: {batch_sizes: [64, 512, 16]}")
    assert (checked.small_batch_size, checked.large_batch_size) == (16, 512)


def test_study_is_immutable(study: Callable):
    checked = study("name: s")
    with pytest.raises(ValueError, match="frozen"):
        checked.training.patience = 1


RATES = st.floats(min_value=1e-12, max_value=1e3, allow_nan=False)


@given(
    batch_sizes=st.lists(st.integers(1, 1438), min_size=1, max_size=4, unique=True),
    rates=st.lists(RATES, min_size=1, max_size=4, unique=True),
    seeds=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=3, unique=True),
    fixed_learning_rate=RATES,
)
def test_run_names_are_unique_and_descriptive(
    batch_sizes: list[int], rates: list[float], seeds: list[int], fixed_learning_rate: float
):
    grid = {"batch_sizes": batch_sizes, "learning_rates": rates, "seeds": seeds}
    comparison = {"fixed_learning_rate": fixed_learning_rate, "high_learning_rate": rates[0]}
    arms = {
        "warm": {"rule": "constant", "warmup": {"epochs": 3}},
        "linear": {"enabled": False},
        "sqrt": {"enabled": False},
    }
    runs = Study.from_mapping({"name": "s", "grid": grid, "comparison": comparison, "arms": arms}, "s").runs
    assert len(runs) == len(batch_sizes) * (len({*rates, fixed_learning_rate}) + 2) * len(seeds)
    for name, run in runs.items():
        parts = re.fullmatch(r"bs(\d+)-lr([0-9.]+|tuned)(?:-warmup(\d+))?-seed(\d+)", name)
        rate = None if parts[2] == "tuned" else float(parts[2])
        warmup = Warmup(epochs=int(parts[3])) if parts[3] else None
        assert Run(int(parts[1]), rate, int(parts[4]), (), warmup) == run


def with_rates(fixed_learning_rate: float, high_learning_rate: float) -> Study:
    return Study.from_mapping(
        {
            "name": "s",
            "grid": {"batch_sizes": [8, 16, 32], "learning_rates": [0.01, 0.08], "seeds": [0, 1]},
            "comparison": {"fixed_learning_rate": fixed_learning_rate, "high_learning_rate": high_learning_rate},
            "arms": {"linear": {"enabled": False}, "sqrt": {"enabled": False}},
            "tuning": {"enabled": False},
        },
        "s",
    )


@pytest.mark.parametrize(
    ("fixed_learning_rate", "high_learning_rate", "added"),
    [(0.01, 0.08, 0), (0.08, 0.08, 0), (0.03, 0.08, 1), (0.01, 0.3, 1), (0.03, 0.3, 2), (0.3, 0.3, 1)],
)
def test_arms_share_runs_and_a_new_rate_adds_each_batch_size_and_seed_once(
    fixed_learning_rate: float, high_learning_rate: float, added: int
):
    in_grid = set(with_rates(0.01, 0.08).runs)
    runs = with_rates(fixed_learning_rate, high_learning_rate).runs
    assert in_grid <= set(runs)
    assert len(runs) - len(in_grid) == added * 3 * 2


@pytest.mark.parametrize("key", ["settings", "seeds"])
@pytest.mark.parametrize("section", ["landscape", "trajectory"])
def test_null_equals_the_documented_default(study: Callable, section: str, key: str):
    assert study(f"name: s\n{section}: {{{key}: null}}") == study("name: s")


def test_target_of_a_loss_of_the_users_own_may_be_negative(study: Callable):
    own = "name: s\ndata: {source: 'own:load'}\ntask: {name: regression, loss: 'own:nll'}"
    assert study(f"{own}\ncomparison: {{targets: [{{loss: -1.5}}]}}").targets == [
        {"name": "loss", "value": -1.5, "higher_is_better": False}
    ]


def test_targets_are_reached_on_the_better_side_of_each_metric(study: Callable):
    regression = (
        "name: s\ndata: {source: 'own:load'}\ntask: {name: regression, metrics: ['own:top_error']}\n"
        "comparison: {targets: [{r2: -0.5}, {rmse: '1e-3'}, {mae: 2}, {top_error: -1}, {rmse: 2}]}"
    )
    sides = [tuple(target.values()) for target in study(regression).targets]
    assert sides == [
        ("r2", -0.5, True),
        ("rmse", 1e-3, False),
        ("mae", 2, False),
        ("top_error", -1, False),
        ("rmse", 2, False),
    ]
    assert study("name: s\ncomparison: {targets: [{accuracy: 1}]}").targets[0]["higher_is_better"]


def test_no_targets_are_the_default(study: Callable):
    for text in ("comparison: {targets: []}", "comparison: {targets: null}", ""):
        assert study(f"name: s\n{text}").targets == []


VALUES = st.floats(1e-30, 1e30)
WARMUPS = st.one_of(
    st.none(),
    st.integers(1, 10**9).map(lambda amount: Warmup(epochs=amount)),
    st.integers(1, 10**9).map(lambda amount: Warmup(steps=amount)),
    st.integers(1, 10**9).map(lambda amount: Warmup(examples=amount)),
    st.integers(1, 1000).map(lambda amount: Warmup(fraction=amount / 1000)),
)
CHANGES = st.dictionaries(st.sampled_from(HYPERPARAMETERS), VALUES).map(
    lambda values: tuple((name, values[name]) for name in HYPERPARAMETERS if name in values)
)
RUNS = st.builds(Run, st.integers(1, 10**6), st.one_of(st.none(), RATES), st.integers(0, 9), CHANGES, WARMUPS)


@given(runs=st.lists(RUNS, unique=True))
def test_name_is_a_file_name_of_its_own_that_the_workflow_knows(runs: list[Run]):
    assert len({run.name for run in runs}) == len(runs)
    for run in sorted(runs):
        assert re.fullmatch(SETTING_PATTERN, run.setting)
        assert re.fullmatch(r"[a-z0-9._-]+", run.name)
        # As in a target of the command line, and in the name of a pair.
        assert re.match(f"{SETTING_PATTERN}(-seed[0-9]+)?", f"{run.name}/run.json")[0] == run.name
        pair = re.fullmatch(f"({SETTING_PATTERN})--({SETTING_PATTERN})", f"{run.setting}--{run.setting}")
        assert pair[1] == pair[2] == run.setting


def test_name_has_the_changes_in_a_fixed_order():
    changes = (("beta1", 0.8), ("beta2", 0.996), ("eps", 2e-8), ("weight_decay", 0.02), ("momentum", 0.8))
    run = Run(128, 0.003, 1, changes, Warmup(fraction=0.1))
    assert run.name == "bs128-lr0.003-beta1_0.8-beta2_0.996-eps2e-08-wd0.02-momentum0.8-warmup10pct-seed1"


def test_run_trains_by_the_recipe_of_the_study_with_its_changes(study: Callable):
    checked = study(
        "name: s\noptimizer: {name: AdamW, arguments: {weight_decay: 0.1, amsgrad: true}, clip_norm: 1}\n"
        "schedule: {decay: cosine, warmup: {steps: 9}}\n"
        "arms: {sde: {warmup: {fraction: 0.1}}, decayed: {exponents: {weight_decay: 1}}}"
    )
    by_arm = {name: {run.batch_size: run for run in runs} for name, runs in checked.runs_by_arm.items()}
    optimizer, schedule, _ = checked.recipe(by_arm["sde"][64])
    assert optimizer.arguments == {"weight_decay": 0.1, "amsgrad": True, "betas": [0.8, 0.998], "eps": 7.07107e-9}
    assert (optimizer.name, optimizer.clip_norm) == ("AdamW", 1)
    assert (schedule.decay, schedule.warmup) == ("cosine", Warmup(fraction=0.1))
    optimizer, schedule, _ = checked.recipe(by_arm["decayed"][128])
    assert optimizer.arguments == {"weight_decay": 0.4, "amsgrad": True}
    assert schedule == checked.schedule
    for arm in ("fixed", "high", "tuned", "linear"):
        assert checked.recipe(by_arm[arm][256]) == (checked.optimizer, checked.schedule, ())


@pytest.mark.parametrize(
    ("sections", "line"),
    [
        ("task: {loss: module}", "task.loss: `module` is for a LightningModule, and model.name is vgg; write"),
        (
            "optimizer: {name: module}",
            "optimizer.name: `module` is for a LightningModule, and model.name is vgg;",
        ),
        ("optimizer: {name: module, arguments: {lr: 1}}", "optimizer.arguments: are not for `name: module`; set it in"),
        (
            "optimizer: {name: module, decay_biases_and_norms: no}",
            "optimizer.decay_biases_and_norms: is not for `nam",
        ),
        (
            "model: {name: 'm:Lit'}\noptimizer: {name: module}\narms: {a: {exponents: {weight_decay: 1}}}",
            "arms.a.exponents.weight_decay: the weight_decay of the optimizer of the module is not known; name an opt",
        ),
    ],
)
def test_loss_and_optimizer_of_a_module_are_for_one(study: Callable, refusal: Callable, sections: str, line: str):
    assert line in refusal(study, f"name: s\n{sections}".replace("no}", "false}"))


def test_optimizer_is_named_only_if_the_file_does(study: Callable):
    assert not study("name: s").names_optimizer
    assert not study("name: s\noptimizer: {clip_norm: 1}").names_optimizer
    assert study("name: s\noptimizer: {name: SGD}").names_optimizer
