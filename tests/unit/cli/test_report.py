"""The report of an incomplete study: its sources, and what it lists as missing, with the reason."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from batchscape.cli.report import Collector, write_partial_report
from batchscape.config.budget import Warmup
from batchscape.config.stages import MeasuredStages, StageConfig
from batchscape.io.files import write_json
from batchscape.io.frames import write_frame
from batchscape.io.run_directory import COMPLETED_COPY
from batchscape.report.tables import recommendation, tuned_lr
from batchscape.study.study import Study
from tests.helpers.jobs import STAYING_JOB, write_states
from tests.helpers.page import ParsedPage
from tests.helpers.runs import write_run
from tests.helpers.tables import synthetic_runs
from tests.helpers.waiting import wait_for

OFF = {"enabled": False}
SETTINGS = {
    "name": "s",
    "grid": {"batch_sizes": [32, 64], "learning_rates": [0.1], "seeds": [0, 1]},
    "comparison": {"fixed_learning_rate": 0.1, "high_learning_rate": 0.1},
    "arms": {"linear": OFF, "sqrt": OFF},
    **dict.fromkeys(
        ("tuning", "interpolation", "landscape", "gradient_alignment", "device_timing", "confirmation"), OFF
    ),
}
ONE, TWO, THREE, FOUR = (f"bs{size}-lr0.1-seed{seed}" for size in (32, 64) for seed in (0, 1))


def make_study(**sections: object) -> Study:
    return Study.from_mapping({**SETTINGS, **sections}, "s.yaml")


@pytest.fixture(autouse=True)
def _in_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def train(study: Study, *names: str) -> None:
    for name in names:
        run = study.runs[name]
        write_run(Path(study.paths.run_file(name, "run.json")).parent, run.batch_size, run.seed)


def write_sharpness(study: Study, setting: str) -> Path:
    """Write what the job of a setting writes."""
    names = study.plan.analyzed_runs("sharpness", setting)
    lead = {"setting": setting, "batch_size": int(setting[2:4]), "learning_rate": 0.1, "status": "converged"}
    measurement = {
        "checkpoint": "best",
        "batch_norm": "none",
        "measure": "keskar",
        "radius": 1e-3,
        "not_computed": "none",
    }
    result = {"value": 2.0, "loss": 0.5, "evaluations": 3, "iterations": 2, "on_bounds": 0}
    path = Path(study.paths.csv(f"analysis/sharpness/{setting}"))
    rows = [{"run": name, **lead, "seed": study.runs[name].seed, **measurement, **result} for name in names]
    write_frame(path, pd.DataFrame(rows))
    return path


def reasons(collector: Collector, kind: str) -> dict[str, str]:
    return {gap.name: gap.reason for gap in collector.gaps if gap.kind == kind}


def damage(study: Study) -> None:
    Path(study.paths.run_file(ONE, "run.json")).write_text("{")


def record(study: Study, job: str, *states: dict[str, Any]) -> None:
    write_states(Path(study.paths.log(job)), {"state": "started"}, *states)


def lose(*states: dict[str, Any]) -> Callable[[Study], None]:
    """Return a function that deletes a run and records these states of its job."""

    def delete(study: Study) -> None:
        run_file = Path(study.paths.run_file(ONE, "run.json"))
        run_file.unlink()
        shutil.rmtree(run_file.parent / COMPLETED_COPY)
        record(study, f"train/{ONE}", *states)

    return delete


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lose({"state": "failed", "message": "grid.batch_sizes: 64 is too many"}), "grid.batch_sizes: 64 is too many"),
        (lose({"state": "failed", "message": "MemoryError"}), "MemoryError"),
        (lose({"state": "epoch", "epoch": 1, "train_loss": 0.7}), "its job was interrupted"),
        (lose({"state": "interrupted"}), "its job was interrupted"),
        (lose({"state": "complete"}), "not created yet"),
        (lambda study: shutil.rmtree(study.paths.folder + f"/runs/{ONE}"), "not created yet"),
        (damage, f"results/s/runs/{ONE}/run.json: does not match its schema"),
    ],
    ids=["user error", "exception", "killed", "Ctrl-C", "deleted", "not begun", "damaged"],
)
def test_a_missing_run_is_left_out_with_the_reason(change: Callable, reason: str):
    study = make_study()
    train(study, *study.runs)
    change(study)
    collector = Collector(study)
    assert list(collector.runs()) == [TWO, THREE, FOUR]
    (actual,) = reasons(collector, "run").values()
    assert actual.startswith(reason)


def test_a_running_job_is_distinguished_from_one_that_ended():
    study = make_study()
    log = Path(study.paths.log(f"train/{ONE}"))
    with subprocess.Popen([sys.executable, "-c", STAYING_JOB, str(log), "[]"]) as job:
        wait_for(lambda: job.poll() is not None or (log.exists() and log.read_text()))
        assert job.poll() is None
        collector = Collector(study)
        assert collector.runs() == {}
        job.kill()
    assert reasons(collector, "run")[ONE] == "its job is running"


def test_runs_with_other_settings_or_data_are_not_reported(small_data_file: Path):
    study = make_study()
    train(study, *study.runs)
    collector = Collector(make_study(training={"budget": {"epochs": 7}}))
    assert collector.runs() == {}
    other = "was trained with other settings than the study has now"
    assert reasons(collector, "run") == dict.fromkeys(study.runs, other)
    Path(study.paths.prepared_data).parent.mkdir()
    shutil.copy(small_data_file, study.paths.prepared_data)
    collector = Collector(study)
    assert collector.runs() == {}
    assert set(reasons(collector, "run").values()) == {"was trained on other data than the study has now"}


def test_a_tuned_run_is_reported_only_at_the_rate_that_its_search_found():
    study = make_study(tuning={"enabled": True})
    names = [name for name in study.runs if "tuned" in name]
    train(study, *names)  # at 0.1
    write_json(Path(study.paths.tuning_file(32, "tuned.json")), {"learning_rate": 0.1})
    record(study, "tune/bs64", {"state": "failed", "message": "RuntimeError: the search"})
    collector = Collector(study)
    runs = collector.runs()
    assert list(runs) == ["bs32-lrtuned-seed0", "bs32-lrtuned-seed1"]
    assert reasons(collector, "run")["bs64-lrtuned-seed0"] == "the search for its learning rate is not complete"
    collector.frames(runs)
    assert reasons(collector, "analysis")["lr_search/bs64"] == "RuntimeError: the search"
    write_json(Path(study.paths.tuning_file(32, "tuned.json")), {"learning_rate": 0.2})
    assert Collector(study).runs() == {}


def test_a_run_whose_stages_are_measured_is_reported_only_with_those_stages():
    study = make_study(branching={"enabled": True, "batch_warmup": True})
    names = [name for name in study.runs if "batchwarmup" in name]
    train(study, *names)  # without stages
    collector = Collector(study)
    assert collector.runs() == {}
    reason = "the branches that its batch size follows from are not complete"
    assert reasons(collector, "run")[names[0]] == reason
    (file,) = map(Path, study.paths.batch_stages_files.values())
    write_json(file, MeasuredStages(stages=()).model_dump(mode="json"))
    assert list(Collector(study).runs()) == names
    stage = StageConfig(start=Warmup(examples=9), batch_size_factor=2)
    write_json(file, MeasuredStages(stages=(stage,)).model_dump(mode="json"))
    assert Collector(study).runs() == {}
    file.write_text("{}")
    collector = Collector(study)
    collector.runs()
    assert reasons(collector, "run")[names[0]].endswith("Field required); delete it so that its job writes it again")


def test_tables_are_computed_from_existing_runs_and_not_read_from_older_files():
    study = make_study(sharpness=OFF)
    train(study, ONE, TWO, THREE)
    old = pd.DataFrame({"setting": ["bs32-lr0.1"], "best_validation_loss_mean": [99.0]})
    write_frame(Path(study.paths.csv("tables/fixed_lr")), old)
    collector = Collector(study)
    frames = collector.frames(collector.runs())
    table = frames["tables/fixed_lr"].set_index("batch_size")
    assert table["n_seeds"].to_dict() == {32: 2, 64: 1}
    assert table["best_validation_loss_mean"].to_dict() == {32: 0.4, 64: 0.4}
    assert {name for name in frames if name.startswith("tables/")} == {
        "tables/runs",
        *(f"tables/{t}" for t in study.plan.tables),
    }
    assert [gap.name for gap in collector.gaps] == ["prepare", "network", FOUR]


def test_a_corrupt_file_of_a_run_excludes_it_from_the_analyses_that_read_the_file():
    study = make_study(sharpness=OFF)
    train(study, *study.runs)
    Path(study.paths.run_file(ONE, "update_norms.npy")).write_bytes(b"")
    collector = Collector(study)
    frames = collector.frames(collector.runs())
    assert len(frames["tables/runs"]) == 4
    assert set(frames["analysis/update_norms"]["run"]) == {TWO, THREE, FOUR}
    (reason,) = reasons(collector, "analysis").values()
    assert reason.startswith(f"results/s/runs/{ONE}/update_norms.npy: cannot be read")


def test_a_failed_analysis_or_one_older_than_its_runs_is_left_out():
    study = make_study()
    train(study, *study.runs)
    one, other = (write_sharpness(study, setting) for setting in study.plan.arm_settings)

    def collected() -> tuple[dict[str, pd.DataFrame], dict[str, str]]:
        collector = Collector(study)
        return collector.frames(collector.runs()), reasons(collector, "analysis")

    frames, missing = collected()
    assert (len(frames["analysis/sharpness"]), missing) == (4, {})
    before = one.stat().st_mtime
    os.utime(one, (before - 1000, before - 1000))
    frames, missing = collected()
    assert set(frames["analysis/sharpness"]["setting"]) == {"bs64-lr0.1"}
    assert missing == {"sharpness/bs32-lr0.1": "was computed from an earlier training of its runs"}
    assert set(frames["tables/claims"]["claim"]) >= {"sharper_minima"}  # the others are still tested
    one.unlink()
    other.write_text(other.read_text()[:-5])
    record(study, "sharpness/bs32-lr0.1", {"state": "failed", "message": "RuntimeError: no derivative"})
    frames, missing = collected()
    assert "analysis/sharpness" not in frames
    assert missing["sharpness/bs32-lr0.1"] == "RuntimeError: no derivative"
    assert missing["sharpness/bs64-lr0.1"].startswith(f"{other}: is truncated in its last line")
    claims = frames["tables/claims"].set_index("claim")
    assert claims.loc["sharper_minima", "reading"] == "Not tested: the sharpness of these runs was not measured."
    assert claims.loc["nearer_to_init", "n_seeds"] == 2


def test_a_table_that_cannot_be_computed_is_left_out_with_those_computed_from_it():
    study = make_study()
    train(study, *study.runs)
    for setting in study.plan.arm_settings:
        path = write_sharpness(study, setting)
        write_frame(path, pd.read_csv(path).drop(columns="radius"))  # as an older version wrote it
    collector = Collector(study)
    frames = collector.frames(collector.runs())
    missing = reasons(collector, "table")
    assert missing["arm_runs"] == "cannot be created from what exists (KeyError: 'radius')"
    assert missing["claims"] == "needs tables/arm_runs"
    assert {f"tables/{name}" for name in set(study.plan.tables) - set(missing)} < set(frames)
    assert set(missing) == {"arm_runs", "sharpness", "scaled_lr", "claims"}


def test_an_analysis_of_missing_runs_names_them():
    study = make_study()
    train(study, ONE, TWO, THREE)
    for setting in study.plan.arm_settings:
        write_sharpness(study, setting)
    collector = Collector(study)
    collector.frames(collector.runs())
    assert reasons(collector, "analysis") == {"sharpness/bs64-lr0.1": f"needs the missing run {FOUR}"}


def test_an_edit_of_the_study_file_after_the_analyses_is_reported():
    study = make_study()
    train(study, *study.runs)
    file = Path("s.yaml")
    file.write_text("name: s\n")
    os.utime(file, (1e9, 1e9))
    for setting in study.plan.arm_settings:
        write_sharpness(study, setting)
    collector = Collector(study)
    collector.frames(collector.runs())
    assert collector.edited_since(file) == []
    file.touch()
    (line,) = collector.edited_since(file)
    assert line == (
        "s.yaml was edited after 2 of the 2 files of analyses were written; `batchscape run FILE -n` lists those that "
        "the edit makes stale"
    )


def test_missing_parts_with_the_same_reason_are_grouped():
    study = make_study()
    collector = Collector(study)
    collector.runs()
    assert collector.missing() == [
        ("job prepare, network", "not created yet"),
        ("run " + ", ".join(study.runs), "not created yet"),
    ]


def test_the_page_lists_what_is_missing_and_nothing_else_is_written(refusal: Callable[..., str]):
    study = make_study(sharpness=OFF)
    train(study, ONE, TWO, THREE)
    record(study, f"train/{FOUR}", {"state": "failed", "message": "CUDA: out of <memory>"})
    before = set(Path().rglob("*"))
    Path("s.yaml").write_text("name: s\n")
    lines = write_partial_report(study, Path("s.yaml"))
    page = Path("results/s/report-partial.html")
    assert set(Path().rglob("*")) - before == {page, Path("s.yaml")}
    assert lines[0] == "3 of 4 runs complete"
    assert f"missing run {FOUR}: CUDA: out of <memory>" in lines
    assert lines[-1] == f"the partial report: {page}"
    text = ParsedPage(page.read_text()).text
    assert text.index("This report is partial") < text.index("The answer")
    assert f"{FOUR}: CUDA: out of <memory>" in text
    page.unlink()
    page.mkdir()
    assert refusal(write_partial_report, study, Path("s.yaml")).startswith(f"{page}: cannot be written (")


def test_without_complete_runs_the_report_fails_with_one_line(refusal: Callable[..., str]):
    Path("s.yaml").write_text("name: s\ngrid: {seeds: [0]}\n")
    nothing = "results/s: no run is complete, so there is nothing to report yet"
    assert refusal(write_partial_report, Study.from_file(Path("s.yaml")), Path("s.yaml")) == nothing
    record(make_study(), "prepare", {"state": "failed", "message": "data.path: there is no x"})
    command = [sys.executable, "-m", "batchscape", "report", "s.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"{nothing} (job prepare: data.path: there is no x)\n"


# Tables of fewer runs than the study has.


def test_a_search_of_only_the_large_batch_has_no_scaled_rates():
    trials = pd.DataFrame(
        {"batch_size": [64, 64], "learning_rate": [0.1, 0.2], "validation_loss": [0.5, 0.4], "is_best": [0, 1]}
    ).assign(stage="grid", n_pruned=0, trainings=1.0)
    table = tuned_lr.tabulate(trials, small_batch_size=32, tuning_budget=9.0)
    assert table["tuned_learning_rate"].tolist() == [0.2]
    assert table[["linear_learning_rate", "sqrt_learning_rate"]].isna().all(axis=None)


def test_only_tuned_runs_are_recommended_without_a_best_constant_rate():
    runs = synthetic_runs({(32, 0.1): [0.2, 0.3]}).assign(setting="bs32-lrtuned")
    table = recommendation.tabulate(runs, pd.DataFrame(), metrics=["accuracy"])
    assert table["choice"].tolist() == ["lowest loss and cheapest equivalent"]
    assert table["edge"].tolist() == ["none"]


def test_runs_of_the_confirmation_are_read_if_the_runs_give_their_finalists():
    study = make_study(confirmation={"settings": 1, "seeds": 2})
    train(study, ONE, TWO, THREE, FOUR)
    for name, (_, seed) in study.confirmation_runs.items():  # of equal losses, the first setting
        write_run(Path(study.paths.confirmation_file(name, "run.json")).parent, 32, seed)
    collector = Collector(study)
    rows = collector.frames(collector.runs())["analysis/confirmation"]
    assert rows[["run", "rank", "setting", "seed", "diverged_in_grid"]].to_numpy().tolist() == [
        ["rank1-seed1000", 1, "bs32-lr0.1", 1000, 0],
        ["rank1-seed1001", 1, "bs32-lr0.1", 1001, 0],
    ]
    # The finalist of an earlier state of the grid had another batch size.
    write_run(Path(study.paths.confirmation_file("rank1-seed1001", "run.json")).parent, 64, 1001)
    collector = Collector(study)
    assert list(collector.frames(collector.runs())["analysis/confirmation"]["seed"]) == [1000]
    assert reasons(collector, "run") == {
        "confirmation/rank1-seed1001": "was trained with other settings than the study has now"
    }
