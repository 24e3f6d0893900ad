"""The finalists, and the specifications of their runs."""

import json

import pandas as pd

from batchscape.config.budget import Warmup
from batchscape.config.run import RunSpec, with_hyperparameters
from batchscape.config.stages import MeasuredStages, StageConfig
from batchscape.report.finalists import choose_finalists
from batchscape.study.study import Study
from tests.helpers.tables import DIVERGED, synthetic_runs

STUDY = Study.from_mapping(
    {
        "name": "s",
        "grid": {"batch_sizes": [32, 64], "learning_rates": [0.1, 0.2], "seeds": [0, 1]},
        "comparison": {"fixed_learning_rate": 0.1, "high_learning_rate": 0.2},
        "arms": {"sqrt": {"enabled": False}, "mine": {"rule": "linear", "warmup": {"epochs": 3}}},
    },
    "s",
)
SPEC = json.loads(STUDY.specs.finalists)
TUNED = {32: {"learning_rate": 0.37, "momentum": 0.95}, 64: {"learning_rate": 0.37, "momentum": None, "warmup": 0.2}}


def runs_of(losses: dict[tuple[int, float], list], tuned: float | None = None) -> pd.DataFrame:
    runs = synthetic_runs(losses)
    runs.loc[runs["learning_rate"] == tuned, "setting"] = "bs64-lrtuned"
    return runs


def test_finalists_have_the_lowest_mean_validation_loss():
    runs = runs_of({(32, 0.1): [0.4, 0.5], (32, 0.2): [0.1, 0.3], (64, 0.1): [0.3, 0.3], (64, 0.2): [0.9, 0.1]})
    chosen = choose_finalists(runs, SPEC, TUNED, {}).finalists
    assert [finalist.setting for finalist in chosen] == ["bs32-lr0.2", "bs64-lr0.1", "bs32-lr0.1"]
    assert not any(finalist.diverged for finalist in chosen)


def test_diverged_settings_are_finalists_only_if_others_are_missing():
    runs = runs_of({(32, 0.1): [0.4, 0.5], (32, 0.2): [0.1, DIVERGED], (64, 0.1): [0.3, 0.3]})
    chosen = choose_finalists(runs, SPEC, TUNED, {}).finalists
    assert [(finalist.setting, finalist.diverged) for finalist in chosen] == [
        ("bs64-lr0.1", False),
        ("bs32-lr0.1", False),
        ("bs32-lr0.2", True),
    ]


def test_run_of_a_finalist_is_that_of_the_grid_with_another_seed():
    for name, run in STUDY.runs.items():
        runs = runs_of({(run.batch_size, run.learning_rate or 0.37): [0.1, 0.2]}).assign(setting=run.setting)
        (finalist,) = choose_finalists(runs, SPEC, TUNED, {}).finalists
        expected = json.loads(STUDY.specs.run(name)) | {"seed": 1000}
        if run.learning_rate is None:
            assert finalist.run_spec(1000) == with_hyperparameters(expected, TUNED[run.batch_size])
        else:
            assert finalist.run_spec(1000) == RunSpec.model_validate_json(json.dumps(expected))


def test_tuned_finalist_has_all_hyperparameters_of_the_search():
    runs = runs_of({(32, 0.37): [0.1, 0.2]}).assign(setting="bs32-lrtuned")
    (finalist,) = choose_finalists(runs, SPEC, TUNED, {}).finalists
    run = finalist.run_spec(7)
    assert (run.seed, run.learning_rate, run.optimizer.arguments["momentum"]) == (7, 0.37, 0.95)


def test_finalist_with_measured_stages_is_trained_with_them():
    branched = Study.from_mapping(
        {
            "name": "s",
            "grid": {"batch_sizes": [32], "learning_rates": [0.1]},
            "tuning": {"enabled": False},
            "branching": {"enabled": True, "batch_warmup": True},
            "comparison": {"fixed_learning_rate": 0.1, "high_learning_rate": 0.1},
        },
        "s",
    )
    setting = "bs32-lr0.1-batchwarmup"
    stage = StageConfig(start=Warmup(examples=99), batch_size_factor=4, learning_rate_factor=2)
    measured = {setting: MeasuredStages(stages=(stage,)).model_dump(mode="json")}
    runs = runs_of({(32, 0.1): [0.1, 0.2]}).assign(setting=setting)
    (finalist,) = choose_finalists(runs, json.loads(branched.specs.finalists), {}, measured).finalists
    base = json.loads(branched.specs.run("bs32-lr0.1-seed0")) | {"seed": 7}
    assert finalist.run_spec(7) == RunSpec.model_validate_json(json.dumps(base)).model_copy(update={"stages": (stage,)})
