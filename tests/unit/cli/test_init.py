"""`batchscape init`: what it writes is valid, and it overwrites nothing."""

import shlex
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from batchscape.__main__ import SOURCES
from batchscape.cli.init import data_sections, init, render_study
from batchscape.errors import UserError
from batchscape.runtime.workflow import SNAKEFILE, WORKFLOW
from batchscape.study.study import Study
from tests.helpers.checkout import PROJECT

READER = YAML(typ="safe", pure=True)


@pytest.mark.parametrize(
    ("source", "task"), [(source, task) for source in SOURCES for task in data_sections()[source].tasks]
)
def test_the_study_of_each_source_and_task_is_valid_and_trains(source: str, task: str):
    content = READER.load(render_study("mine", source, task))
    study = Study.from_mapping(content, "study.yaml")
    assert (study.name, study.data.source, study.task.name) == ("mine", source, task)
    assert len({run.batch_size for run in study.runs.values()}) == 3
    assert study.tuning.enabled and study.confirmation_runs


@pytest.mark.parametrize(
    ("source", "task"), [("text", "language_model"), ("diamonds", "regression"), ("table", "classification")]
)
def test_the_task_is_by_default_that_of_the_source(source: str, task: str):
    assert READER.load(render_study("mine", source))["task"] == {"name": task}


def test_the_study_file_names_the_other_tasks_of_the_source():
    assert "\n  name: classification  # or regression\n" in render_study("mine", "table")
    assert "\n  name: regression  # or classification\n" in render_study("mine", "table", "regression")
    assert "\n  name: language_model\n" in render_study("mine", "text")


def test_a_task_that_the_source_cannot_have_is_refused():
    with pytest.raises(UserError) as error:
        render_study("mine", "table", "language_model")
    assert str(error.value) == (
        "--task: language_model is not possible with --data table; choose classification or regression"
    )


def test_a_new_folder_has_the_study_the_snakefile_and_the_profiles(tmp_path: Path):
    folder = tmp_path / "my pets"
    lines = init(folder, "image_folder")
    written = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    profiles = {str(path.relative_to(PROJECT)) for path in (PROJECT / "profiles").glob("*/config.yaml")}
    assert written == {"study.yaml", "Snakefile"} | profiles
    assert READER.load(folder / "study.yaml")["name"] == "my-pets"
    for profile in profiles:
        original = READER.load(PROJECT / profile)
        assert READER.load(folder / profile) == {**original, "configfile": ["study.yaml"]}
    assert lines[1:] == [
        "next, edit the section data of study.yaml: it names files that do not exist",
        f"then: cd {shlex.quote(str(folder))} && batchscape run study.yaml --cores 8",
    ]


@pytest.mark.parametrize("name", ["007", "null", "1e5", "true", "äöü", "_"])
def test_any_folder_gives_a_valid_name(tmp_path: Path, name: str):
    init(tmp_path / name, "digits")
    assert Study.from_file(tmp_path / name / "study.yaml").name == ("study" if name in ("äöü", "_") else name)


def test_the_working_directory_may_have_hidden_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / ".git").mkdir()
    monkeypatch.chdir(tmp_path)
    assert init(Path(), "digits")[1:] == ["next: batchscape run study.yaml --cores 8"]


@pytest.mark.parametrize("existing", ["study.yaml", "notes.txt", "data/1.csv"])
def test_a_folder_with_files_is_refused_and_stays_as_it_is(tmp_path: Path, existing: str):
    file = tmp_path / "mine" / existing
    file.parent.mkdir(parents=True)
    file.write_text("precious")
    with pytest.raises(
        UserError, match="mine: has files, which `init` does not overwrite; give a new or an empty fold"
    ):
        init(tmp_path / "mine", "digits")
    assert [path for path in (tmp_path / "mine").rglob("*") if path.is_file()] == [file]
    assert file.read_text() == "precious"


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path):
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(UserError, match=r"mine: cannot be written \(File exists\); give another folder"):
        init(tmp_path / "mine", "digits")


def test_the_workflow_of_a_clone_is_at_its_top():
    assert (WORKFLOW, SNAKEFILE) == (PROJECT, PROJECT / "Snakefile")
