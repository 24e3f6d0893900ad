"""`batchscape status --watch`: bars, and times to go that count only what this attempt has done."""

import io
from pathlib import Path

import pytest

from batchscape.cli.status import JobStatus, read_other_jobs, read_runs
from batchscape.cli.watch import (
    Progress,
    count_analyses,
    describe_search,
    describe_stages,
    describe_training,
    time_to_go,
    watch,
)
from batchscape.study.study import Study
from tests.helpers.runs import write_runs_of

STARTED = {"state": "started", "time": 50.0}


def evaluated(time: float, step: int, steps: int = 1000) -> dict:
    return {"state": "evaluated", "time": time, "step": step, "steps": steps, "epoch": 1}


@pytest.mark.parametrize("earlier", [[], [{"state": "resumed", "time": 60.0, "step": 900}]])
def test_the_speed_of_a_training_is_that_of_this_attempt(earlier: list[dict]):
    progress = describe_training("a", [STARTED, *earlier, evaluated(100, 910), evaluated(110, 930)])
    # Two steps per second, and 70 to go; from step 0, or from the start, it would look faster or slower.
    assert progress == Progress("a", 930, 1000, "step 930 of at most 1000, at most 35.0 s to go")
    assert progress.line(3) == "a    ██████████████████░░  step 930 of at most 1000, at most 35.0 s to go"


def test_a_training_that_was_evaluated_once_has_no_time_to_go():
    assert describe_training("a", [STARTED, evaluated(100, 910)]).detail == "step 910 of at most 1000"
    assert describe_training("a", [STARTED]) == Progress("a", 0, 1, "not evaluated yet")


def trial(time: float, number: int, trainings: float) -> dict:
    return {"state": "trial", "time": time, "trial": number, "trainings": trainings, "budget": 8.0}


def test_a_search_has_the_time_that_the_rest_of_its_budget_takes():
    progress = describe_search("tune/bs32", [STARTED, trial(80, 1, 0.5), trial(110, 2, 1.5)])
    # Two of eight trainings in 60 s.
    assert progress == Progress("tune/bs32", 2.0, 8.0, "2 trials, 2.0 of 8.0 trainings, about 3 min to go")
    assert describe_search("tune/bs32", [STARTED]).detail == "no trial yet"


@pytest.mark.parametrize(
    ("first", "detail"),
    [([STARTED, {"state": "resumed", "time": 51.0, "trials": 4}], "resumed, 5 trials"), ([], "5 trials")],
    ids=["resumed", "the first states are not read"],
)
def test_a_search_whose_earlier_trials_are_not_known_has_no_time_to_go(first: list[dict], detail: str):
    assert describe_search("tune/bs32", [*first, trial(80, 5, 0.5)]).detail == detail


def test_the_time_of_analyses_is_that_of_those_that_were_watched():
    samples = [(0.0, 50), (10.0, 50), (20.0, 51), (30.0, 51), (40.0, 53)]
    assert time_to_go(samples[:-1], 60) is None  # how long the first one has taken is not known
    assert time_to_go(samples, 60) == pytest.approx(20 / 2 * 7)
    assert time_to_go([*samples, (60.0, 53)], 60) == pytest.approx(40 / 2 * 7)  # slower since then


def test_stages_count_jobs():
    runs = [
        JobStatus("a", "done", "converged", 100.0),
        *(JobStatus(name, "running") for name in "bc"),
        *(JobStatus(name, "pending") for name in "de"),
    ]
    jobs = [JobStatus("prepare", "done"), JobStatus("tune/bs32", "running"), JobStatus("tune/bs64", "done")]
    assert describe_stages(runs, jobs, (3, 9, 1), 90.0) == [
        # 100 s · (2 + 2/2) / 2
        Progress("trainings", 1, 5, "1 of 5 done, 2 running, about 2 min to go"),
        Progress("searches", 1, 2, "1 of 2 done, 1 running"),
        Progress("analyses", 3, 9, "3 of 9 done, 1 running, about 90.0 s to go"),
    ]


def test_stages_that_a_study_lacks_are_not_shown():
    stages = describe_stages([JobStatus("a", "running")], [JobStatus("prepare", "done")], (0, 0, 0), None)
    assert [stage.name for stage in stages] == ["trainings"]


class Terminal(io.StringIO):
    """Creates the report when the first progress is written."""

    def __init__(self, report: Path):
        super().__init__()
        self.report = report

    def flush(self) -> None:
        self.report.touch()


def test_runs_with_other_settings_than_the_study_has_now_are_not_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    settings = {"name": "s", "grid": {"batch_sizes": [32], "learning_rates": [0.1], "seeds": [0]}}
    before = Study.from_mapping(settings, "s.yaml")
    write_runs_of(before)
    edited = Study.from_mapping({**settings, "training": {"budget": {"epochs": 7}}}, "s.yaml")
    for study, done in ((before, 1.0), (edited, 0.0)):
        runs = read_runs(study)
        (trainings, _) = describe_stages(runs, read_other_jobs(study), (0, 0, 0), None)
        assert trainings.done / trainings.total == done


def test_it_ends_when_all_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    study = Study.from_mapping({"name": "s", "grid": {"seeds": [0]}, "device_timing": {"enabled": False}}, "s.yaml")
    write_runs_of(study)
    for output in map(Path, study.paths.outputs):
        if not (output.exists() or output.name == "report.html"):
            output.parent.mkdir(parents=True, exist_ok=True)
            output.touch()
    stream = Terminal(Path(study.paths.report))
    watch(study, stream, interval=0)
    first, second = stream.getvalue().split("s at ")[1:]
    number = len(study.runs) + len(study.confirmation_runs)
    assert f"trainings  {'█' * 20}  {number} of {number} done\n" in first
    done, total, running = count_analyses(study)
    assert done == total > 20 and running == 0
    assert f"analyses   {'█' * 20}  {total} of {total} done\n" in first
    assert "report: " not in first
    assert second.endswith("report: results/s/report.html\n")
