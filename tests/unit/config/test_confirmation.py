"""The runs of the confirmation: how many, and with which seeds."""

import json

from batchscape.config.confirmation import confirmation_seeds
from batchscape.study.study import Study

SMALL = {"name": "s", "grid": {"batch_sizes": [32, 64], "learning_rates": [0.01, 0.08], "seeds": [0, 1]}}


def study(**sections: dict) -> Study:
    return Study.from_mapping({**SMALL, **sections}, "s")


def test_seeds_are_the_first_ones_from_1000_that_nothing_else_uses():
    assert confirmation_seeds(3, [0, 1, 2]) == (1000, 1001, 1002)
    assert confirmation_seeds(3, [1001, 5, 1000]) == (1002, 1003, 1004)
    found = study(tuning={"seeds": [1000]})
    assert found.confirmation_seeds == (1001, 1002, 1003)
    assert not {*found.confirmation_seeds} & {*found.grid.seeds, *found.tuning.seeds}


def test_more_seeds_of_the_grid_do_not_change_the_runs_of_the_confirmation():
    more = study(grid={**SMALL["grid"], "seeds": [0, 1, 2, 3, 4]})
    assert more.confirmation_runs == study().confirmation_runs
    assert more.specs.finalists == study().specs.finalists


def test_there_are_as_many_ranks_as_settings_at_most():
    assert list(study().confirmation_runs) == [
        f"rank{rank}-seed{1000 + seed}" for rank in (1, 2, 3) for seed in range(3)
    ]
    one = study(
        grid={"batch_sizes": [32], "learning_rates": [0.01], "seeds": [0]},
        comparison={"fixed_learning_rate": 0.01, "high_learning_rate": 0.01},
        tuning={"enabled": False},
        confirmation={"seeds": 1},
    )
    assert one.confirmation_runs == {"rank1-seed1000": (1, 1000)}
    assert "1 to confirm 1 setting with 1 other seed" in one.plan.describe_trainings()


def test_disabled_confirmation_has_no_runs_tables_or_files():
    off = study(confirmation={"enabled": False})
    assert off.confirmation_runs == {}
    assert "confirmation" not in off.plan.tables
    assert not [file for file in off.paths.outputs if "confirm" in file]
    assert "confirm" not in off.plan.describe_trainings()


def test_estimate_counts_the_runs_of_the_confirmation_at_the_slowest_batch_size():
    def group(**budget: int):
        plan = study(training={"budget": budget}, tuning={"enabled": False}).plan
        return next(each for each in plan.trainings if each.part == "confirmation")

    assert (group(epochs=5).batch_size, group(epochs=5).count) == (32, 9)
    assert group(steps=100).batch_size == 64


def test_spec_of_the_finalists_lists_what_settings_share_once():
    spec = json.loads(study().specs.finalists)
    assert spec["count"] == 3
    assert spec["shared"]["model"]["name"] == "vgg"
    assert spec["settings"]["bs32-lr0.08"] == {"batch_size": 32, "learning_rate": 0.08}
    assert spec["settings"]["bs64-lrtuned"] == {"batch_size": 64}
