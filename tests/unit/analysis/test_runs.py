"""Analyses of a run directory with known numbers."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from batchscape.analysis import distance, epoch_distance, history, runs, update_norms
from batchscape.analysis.cache import cached
from batchscape.analysis.collect import collect, collect_pair
from batchscape.io.run_directory import RunDirectory
from batchscape.io.weights import write_weights
from tests.helpers.runs import LOSSES, write_run


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return write_run(tmp_path / "run")


@pytest.fixture
def diverged(tmp_path: Path) -> RunDirectory:
    return write_run(tmp_path / "diverged", status="diverged")


def test_times_are_the_median_epoch_and_the_sum_up_to_the_best_epoch(run: RunDirectory):
    row = runs.analyze(run).iloc[0]
    assert row["epoch_seconds"] == 2.0
    assert row["seconds_to_best"] == 6.0
    assert row["epoch_cpu_seconds"] == 1.0
    assert row["cpu_seconds_to_best"] == 3.0
    assert (row["epochs"], row["best_epoch"], row["best_validation_loss"]) == (3, 2, 0.4)
    assert row["best_evaluation"] == 2


def test_diverged_run_has_nan_without_a_best_epoch(diverged: RunDirectory):
    row = runs.analyze(diverged).iloc[0]
    missing = [
        "best_epoch",
        "best_evaluation",
        "best_validation_loss",
        "min_train_loss",
        "seconds_to_best",
        "cpu_seconds_to_best",
    ]
    assert row[missing].isna().all()
    assert row["epoch_seconds"] == 5.0
    assert distance.analyze(diverged)["distance"].isna().all()
    assert update_norms.analyze(diverged)["update_norm"].isna().all()
    assert list(update_norms.analyze(diverged)["updates"].unique()) == [2]


def test_metrics_of_any_task_are_read(tmp_path: Path):
    run = write_run(tmp_path / "run", metrics=["rmse", "r2"])
    assert run.metrics() == ["rmse", "r2"]
    row = runs.analyze(run).iloc[0]
    assert row[["validation_rmse_at_best", "validation_r2_at_best"]].tolist() == [0.75, 0.75]
    assert not any(column.startswith("test_") or "accuracy" in column for column in row.index)
    assert {"train_rmse", "train_r2", "validation_rmse", "validation_r2"} < set(history.analyze(run))
    assert write_run(tmp_path / "none", metrics=[]).metrics() == []


def test_results_on_the_test_side_are_read(tmp_path: Path):
    reached = {"loss": 0.45, "rmse": 0.7, "own": None}  # a metric of the user's own was not finite
    metrics = ["rmse", "own"]
    one = write_run(tmp_path / "bs32-lr0.1-seed0", metrics=metrics, test=reached)
    lost = write_run(tmp_path / "bs32-lr0.1-seed1", seed=1, status="diverged", metrics=metrics, test=reached)
    table = collect([one.path, lost.path], runs.analyze)
    assert table["test_loss"].tolist() == pytest.approx([0.45, np.nan], nan_ok=True)
    assert table["test_rmse"].tolist() == pytest.approx([0.7, np.nan], nan_ok=True)
    assert table["test_own"].isna().all()
    # A study in which every run diverged has the same columns.
    assert list(runs.analyze(lost)) == list(runs.analyze(one))


def test_distance_is_from_init_to_best_over_all_layers_and_by_layer(run: RunDirectory):
    distances = distance.analyze(run).set_index("layer")["distance"].to_dict()
    assert distances == pytest.approx({"all layers": np.sqrt(7), "conv": np.sqrt(6), "out": 1.0})
    assert next(iter(distances)) == "all layers"


def test_update_norms_are_summarized_by_percentiles(run: RunDirectory):
    rows = update_norms.analyze(run)
    assert list(rows["percentile"]) == list(range(1, 100))
    assert rows["update_norm"].tolist() == pytest.approx(list(range(1, 100)))
    assert set(rows["updates"]) == {101}


def test_history_and_epoch_distance_are_those_recorded_by_the_run(run: RunDirectory):
    assert history.analyze(run)["validation_loss"].tolist() == LOSSES
    assert history.analyze(run)["train_loss"].tolist() == [loss / 2 for loss in LOSSES]
    assert history.analyze(run)["distance"].tolist() == [3.0, 6.0, 9.0]
    assert history.analyze(run)["noise_scale"].tolist() == pytest.approx([20.0, np.nan, np.nan], nan_ok=True)
    assert epoch_distance.analyze(run)["epoch_distance"].tolist() == [10.0, 20.0, 30.0]


def test_history_counts_steps_and_examples(run: RunDirectory):
    assert history.analyze(run)["step"].tolist() == [7, 14, 21]
    assert history.analyze(run)["examples"].tolist() == [200, 400, 600]


def test_collected_runs_are_sorted_by_setting_and_seed(tmp_path: Path):
    names = {"c-seed0": (256, 0, "diverged"), "a-seed1": (32, 1, "budget_spent"), "a-seed0": (32, 0, "converged")}
    for name, (batch_size, seed, status) in names.items():
        write_run(tmp_path / name, batch_size, seed, status)
    frame = collect([tmp_path / name for name in names], epoch_distance.analyze)
    lead = ["run", "setting", "batch_size", "learning_rate", "seed", "status"]
    assert list(frame.columns) == [*lead, "epoch", "epoch_distance"]
    expected = pd.DataFrame(
        [
            ("a-seed0", "a", 32, 0.1, 0, "converged"),
            ("a-seed1", "a", 32, 0.1, 1, "budget_spent"),
            ("c-seed0", "c", 256, 0.1, 0, "diverged"),
        ],
        columns=lead,
    )
    pd.testing.assert_frame_equal(frame[lead].drop_duplicates(ignore_index=True), expected)
    assert frame["epoch"].tolist() == [1, 2, 3, 1, 2, 3, 1]


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        (("converged", "converged"), "converged"),
        (("budget_spent", "converged"), "budget_spent"),
        (("budget_spent", "diverged"), "diverged"),
    ],
)
def test_pair_has_both_settings_and_the_worse_status(statuses: tuple[str, str], expected: str, tmp_path: Path):
    names = ("bs32-lr0.1-seed4", "bs64-lr0.1-seed4")
    for name, status in zip(names, statuses, strict=True):
        write_run(tmp_path / name, status=status)
    rows = collect_pair(
        *(tmp_path / name for name in names), lambda first, second: pd.DataFrame({"runs": [first, second]})
    )
    assert list(rows.columns) == ["first", "second", "seed", "status", "runs"]
    assert rows.iloc[0, :4].tolist() == ["bs32-lr0.1", "bs64-lr0.1", 4, expected]
    assert [run.path.name for run in rows["runs"]] == list(names)


def test_cached_rows_are_used_until_the_run_or_the_key_changes(tmp_path: Path):
    runs = [write_run(tmp_path / f"bs32-lr0.1-seed{seed}", seed=seed) for seed in (1, 11)]
    output, results = tmp_path / "analysis" / "bs32-lr0.1.csv", iter(range(9))

    def analyze(run: RunDirectory, *key: str) -> int:
        rows = cached(output, key, [run], lambda: pd.DataFrame({"result": [next(results)], "x": [0.1 + 0.2]}))
        assert rows["x"].tolist() == [0.1 + 0.2]
        return int(rows["result"].iloc[0])

    assert [analyze(run, "spec", "code") for run in runs] == [0, 1]
    assert [analyze(run, "spec", "code") for run in runs] == [0, 1]
    assert analyze(runs[0], "spec", "other code") == 2
    assert analyze(runs[0], "spec", "other code") == 2
    assert analyze(runs[1], "spec", "code") == 1
    write_run(runs[1].path, seed=11, batch_size=64)  # trained again
    assert analyze(runs[1], "spec", "code") == 3
    assert len(list((output.parent / ".cache").iterdir())) == 2  # outdated entries are deleted


def test_weights_are_nan_at_a_checkpoint_that_the_run_did_not_reach(tmp_path: Path):
    run, diverged = write_run(tmp_path / "run"), write_run(tmp_path / "diverged", status="diverged")
    assert run.checkpoint_weights("best").vector.tolist() == [1] * 7
    assert run.checkpoint_weights("last").vector.tolist() == [100] * 7
    write_weights(run.weights_file("epoch00003"), {"a.weight": np.ones(7)}, ["a.weight"])
    assert run.checkpoint_weights(3).vector.tolist() == [1] * 7  # the last epoch
    assert np.isnan(run.checkpoint_weights(4).vector).all()
    assert np.isnan(diverged.checkpoint_weights("best").vector).all()
    assert run.checkpoint_weights("best").shapes == {"conv.weight": (2, 2), "conv.bias": (2,), "out.bias": (1,)}
