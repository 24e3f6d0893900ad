"""The command `compare`: the folders and files that it accepts, what it writes, and a line for each thing missing."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batchscape.__main__ import main
from batchscape.cli.compare import compare
from batchscape.errors import UserError
from batchscape.io.frames import read_frame, write_frame
from tests.helpers.finished import RATES, made_up_tables, write_finished, write_study_file

FILES = {"comparison.html", "comparison.pdf", "comparison.png"} | {
    f"{name}.csv" for name in ("comparison", "differences", "power_laws", "claims")
}


@pytest.fixture(autouse=True)
def _in_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def two_studies(**sections: Any) -> list[Path]:
    momentum = {"optimizer": {"arguments": {"momentum": 0.9}}}
    other = made_up_tables(critical=[80.0, 100.0, 124.0])
    return [
        write_finished(Path("results/plain"), made_up_tables(critical=[40.0, 50.0, 62.0]), **sections),
        write_finished(Path("results/momentum"), other, **momentum, **sections),
    ]


def test_page_and_tables_are_written_to_the_default_folder_and_missing_tables_have_a_line():
    lines = compare(two_studies())
    folder = Path("results/comparison")
    assert {path.name for path in folder.iterdir()} == FILES
    assert lines[-1] == "the comparison: results/comparison/comparison.html"
    assert lines[:-1] == [
        f"results/{study}: has no confirmation and no tuned_lr, since its settings disable it"
        for study in ("plain", "momentum")
    ]
    assert read_frame(folder / "differences.csv")["key"].to_list() == ["optimizer.arguments.momentum"]
    claim = read_frame(folder / "claims.csv").iloc[0]
    assert (claim["baseline"], claim["other"], claim["verdict"]) == ("plain", "momentum", "supported")
    page = (folder / "comparison.html").read_text()
    assert "optimizer.arguments.momentum" in page
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    compare([Path("results/plain"), Path("results/momentum")])
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_study_files_stand_for_their_folders_and_an_edit_since_is_named():
    two_studies()
    files = [write_study_file(Path(f"{name}.yaml"), name=name) for name in ("plain", "momentum")]
    lines = compare(files, Path("out"))
    assert lines[0].startswith(
        "momentum.yaml: was edited after results/momentum was computed (optimizer.arguments.momentum); what follows is "
        "about the results"
    )
    assert (Path("out") / "differences.csv").exists()


def test_studies_of_one_name_are_told_apart_by_their_folders():
    folders = [write_finished(Path(place) / "digits") for place in ("old", "new")]
    compare(folders, Path("out"))
    assert set(read_frame(Path("out/comparison.csv"))["study"]) == {"old/digits", "new/digits"}


def make_newer(file: str) -> Callable[[Path], None]:
    def touch(folder: Path) -> None:
        later = (folder / "report.html").stat().st_mtime + 10
        os.utime(folder / file, (later, later))

    return touch


FIRST_RUN = f"runs/bs16-lr{RATES[0]:g}-seed0/run.json"


def show_config(text: str) -> Callable[[Path], object]:
    page = f'<details class="config" id="config"><pre class="wide" tabindex="0">{text}</pre>'
    return lambda folder: (folder / "report.html").write_text(page)


UNFINISHED = {
    "a": (lambda folder: (folder / "report.html").unlink(), "results/a: is not finished, since it has no report.html"),
    "b": (
        make_newer("tables/scaling.csv"),
        "results/b: is not finished, since tables/scaling.csv is newer than report.html",
    ),
    "f": (make_newer(FIRST_RUN), f"results/f: is not finished, since {FIRST_RUN} is newer than report.html"),
    "c": (lambda folder: (folder / "report.html").write_text("<p>"), "results/c/report.html: shows no config; delete"),
    "d": (
        show_config("name: s\ngird: 1\n"),
        "results/d/report.html: gird: is not a known key; did you mean `grid`? (its config is that of another version)",
    ),
    "e": (
        lambda folder: shutil.rmtree(folder / "runs"),
        f"results/e/{FIRST_RUN}: cannot be read",
    ),
}


def test_unfinished_studies_have_one_line_each_and_empty_rows():
    folders = [write_finished(Path("results/plain"))]
    for name, (spoil, _) in UNFINISHED.items():
        folders.append(write_finished(Path("results") / name))
        spoil(folders[-1])
    lines = compare(folders, Path("out"))
    for name, (_, line) in UNFINISHED.items():
        assert [each[: len(line)] for each in lines if f"results/{name}" in each] == [line]
    rows = read_frame(Path("out/comparison.csv"))
    rows = rows[rows["study"] != "plain"]
    assert set(rows["study"]) == set(UNFINISHED)
    assert set(rows["verdict"]) == {"missing"}
    assert rows[["value", "ci95_low", "ci95_high"]].isna().all(axis=None)


UNUSABLE = {
    "missing": (lambda path: path.unlink(), "cannot be read (No such file or directory); delete it and finish it with"),
    "corrupt": (lambda path: path.write_text("a,b\n1,2"), "is truncated in its last line"),
    "lacking": (
        lambda path: write_frame(path, read_frame(path).drop(columns="verdict")),
        "has no column verdict, as other versions write it; delete it and finish it",
    ),
}


def test_a_table_that_cannot_be_used_has_one_line_and_an_empty_row():
    folders = []
    for name, (spoil, _) in UNUSABLE.items():
        folders.append(write_finished(Path("results") / name))
        spoil(folders[-1] / "tables" / "critical_batch.csv")
        later = (folders[-1] / "report.html").stat().st_mtime + 60
        os.utime(folders[-1] / "report.html", (later, later))
    lines = compare(folders, Path("out"))
    rows = read_frame(Path("out/comparison.csv"))
    for name, (_, line) in UNUSABLE.items():
        path = f"results/{name}/tables/critical_batch.csv: "
        assert [each[: len(path + line)] for each in lines if path in each] == [path + line]
        verdicts = rows[rows["study"] == name].set_index("quantity")["verdict"]
        assert (verdicts["critical_batch"], verdicts["critical_batch_20pct"]) == ("missing", "missing")
        assert verdicts["exponent"] != "missing"


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["batchscape", *map(str, arguments)])
    return main()


def test_bad_input_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    plain, momentum = two_studies()
    Path("empty").mkdir()
    cases = {
        (plain,): "compare: needs at least two studies",
        (plain, plain): "results/plain: is given twice",
        (plain, "missing.yaml"): "missing.yaml: no such file",
        (plain, "empty"): "empty: is not the folder of a study",
        (plain, write_study_file(Path("new.yaml"), name="new")): "new.yaml: has no results yet",
        (plain, momentum, "--output", plain): "--output: results/plain is the folder of a study",
        (plain, momentum, "--output", "missing.txt/out"): "--output: missing.txt/out cannot be written",
    }
    Path("missing.txt").touch()
    for arguments, message in cases.items():
        assert command(monkeypatch, "compare", *arguments) == 1
        out, error = capsys.readouterr()
        assert out == ""
        assert error.startswith(message)
        assert error.count("\n") == 1


def test_nothing_is_compared_if_no_study_is_finished():
    folders = two_studies()
    for folder in folders:
        (folder / "report.html").unlink()
    with pytest.raises(UserError, match="none of the studies is finished, so there is nothing to compare"):
        compare(folders)
    assert not Path("results/comparison").exists()
