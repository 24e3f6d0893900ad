"""More seeds in a study file: only that value of the text changes."""

from pathlib import Path

import pytest

from batchscape.cli.extend import extend
from batchscape.errors import UserError
from batchscape.study.study import Study

# Texts, and what they are with two more seeds.
TEXTS = {
    "flow list": (
        "name: s  # mine\ngrid:\n  batch_sizes: [32]\n  seeds: [0, 1]  # two\n# end\n",
        "name: s  # mine\ngrid:\n  batch_sizes: [32]\n  seeds: [0, 1, 2, 3]  # two\n# end\n",
    ),
    "several lines": (
        "name: s\ngrid:\n  seeds: [\n    0,\n    1,\n  ]\n",
        "name: s\ngrid:\n  seeds: [\n    0,\n    1, 2, 3,\n  ]\n",
    ),
    "flow mapping": (
        "name: s\ngrid: {seeds: [0, 1], batch_sizes: [32]}\n",
        "name: s\ngrid: {seeds: [0, 1, 2, 3], batch_sizes: [32]}\n",
    ),
    "block list": (
        "name: s\ngrid:\n  seeds:\n    - 0\n    - 7  # lucky\n  batch_sizes: [32]\n",
        "name: s\ngrid:\n  seeds:\n    - 0\n    - 7  # lucky\n    - 1\n    - 2\n  batch_sizes: [32]\n",
    ),
    "block list at the end": ("name: s\ngrid:\n  seeds:\n  - 0", "name: s\ngrid:\n  seeds:\n  - 0\n  - 1\n  - 2"),
    "no seeds": (
        "name: s\ngrid:\n  # sizes\n  batch_sizes: [32]\n",
        "name: s\ngrid:\n  # sizes\n  seeds: [0, 1, 2, 3, 4]\n  batch_sizes: [32]\n",
    ),
    "no seeds in a flow mapping": (
        "name: s\ngrid: {batch_sizes: [32]}\n",
        "name: s\ngrid: {seeds: [0, 1, 2, 3, 4], batch_sizes: [32]}\n",
    ),
    "empty grid": ("name: s\ngrid: {}\n", "name: s\ngrid: {seeds: [0, 1, 2, 3, 4]}\n"),
    "no grid": ("name: s\n", "name: s\n\ngrid:\n  seeds: [0, 1, 2, 3, 4]\n"),
    "seeds of the search": (
        "name: s\ngrid: {seeds: [0, 1]}\ntuning: {seeds: [2], finalists: {seeds: [4]}}\n",
        "name: s\ngrid: {seeds: [0, 1, 3, 5]}\ntuning: {seeds: [2], finalists: {seeds: [4]}}\n",
    ),
    "ä before": ("name: s # ä€😀\ngrid: {seeds: [0]} # ü\n", "name: s # ä€😀\ngrid: {seeds: [0, 1, 2]} # ü\n"),
    "anchor that nothing else uses": (
        "name: s\ngrid: {seeds: &seeds [0, 1]}\n",
        "name: s\ngrid: {seeds: &seeds [0, 1, 2, 3]}\n",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("before", "after"), TEXTS.values(), ids=TEXTS)
def test_only_the_seeds_are_edited(tmp_path: Path, before: str, after: str):
    file = tmp_path / "study.yaml"
    file.write_text(before)
    old = Study.from_file(file)
    lines = extend(file, 2)
    assert file.read_text() == after
    new = Study.from_file(file)
    assert set(new.runs) > set(old.runs)
    assert {run.seed for name, run in new.runs.items() if name not in old.runs} == set(new.grid.seeds[-2:])
    added = len(new.runs) - len(old.runs)
    assert lines[0].endswith(f"grid.seeds: {list(old.grid.seeds)} is now {list(new.grid.seeds)}")
    assert lines[1].startswith(f"{added} runs are added to the {len(old.runs)} of the study")
    assert lines[-1] == f"`batchscape run {file} -n` lists the jobs, and without `-n` runs them"


@pytest.mark.parametrize(("before", "after"), TEXTS.values(), ids=TEXTS)
def test_line_ends_of_windows_stay(tmp_path: Path, before: str, after: str):
    file = tmp_path / "study.yaml"
    ends = "\n", "\r\n"
    file.write_bytes(before.replace(*ends).encode())
    extend(file, 2)
    assert file.read_bytes().decode() == after.replace(*ends)


UNEDITABLE = {
    "alias": "name: s\nlandscape: {seeds: &seeds [5, 6]}\ngrid: {seeds: *seeds}\n",
    "flow file": "{name: s}\n",
}


@pytest.mark.parametrize("text", UNEDITABLE.values(), ids=UNEDITABLE)
def test_text_that_cannot_be_edited_is_refused_in_one_line_and_unchanged(tmp_path: Path, text: str):
    file = tmp_path / "study.yaml"
    file.write_text(text)
    with pytest.raises(
        UserError, match=r"grid\.seeds: cannot be edited .* write `seeds: \[.*\]` in the section"
    ) as error:
        extend(file, 1)
    assert "\n" not in str(error.value)
    assert file.read_text() == text


def test_number_of_seeds_must_be_positive(tmp_path: Path):
    file = tmp_path / "study.yaml"
    file.write_text("name: s\n")
    with pytest.raises(UserError, match="--seeds: must be at least 1, got 0"):
        extend(file, 0)
