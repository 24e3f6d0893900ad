"""The command `export`: the recommended setting of a finished study, with the values of its runs."""

import ast
import sys
from pathlib import Path

import pytest

from batchscape.__main__ import main
from batchscape.cli.export import export
from batchscape.errors import UserError
from tests.helpers.finished import made_up_tables, write_finished, write_study_file


@pytest.fixture(autouse=True)
def _in_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_recommended_setting_is_exported_with_the_recipe_of_its_runs():
    optimizer = {"name": "AdamW", "arguments": {"betas": [0.9, 0.97]}}
    folder = write_finished(Path("results/s"), spec={"optimizer": optimizer})
    best = made_up_tables()["recommendation"].iloc[0]
    text = export(folder, "huggingface", 2, None)
    found: dict = {}
    exec(text, found)
    arguments = found["arguments"]
    assert arguments["learning_rate"] == best["learning_rate"]
    assert 2 * arguments["per_device_train_batch_size"] == best["batch_size"]
    assert text.startswith(
        f"# The recommended setting of the study s: batch size {best['batch_size']} at learning rate"
    )
    assert "0.97" in text


def test_an_edit_since_is_a_comment():
    write_finished(Path("results/s"))
    file = write_study_file(Path("s.yaml"), name="s", training={"patience": 7})
    first, *_ = export(file, "lightning", 1, None).splitlines()
    assert first.startswith("# s.yaml: was edited after results/s was computed (training.patience)")


@pytest.mark.parametrize("kind", ["lightning", "huggingface", "torchrun"])
def test_command_prints_python(kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    folder = write_finished(Path("results/s"))
    monkeypatch.setattr(sys, "argv", ["batchscape", "export", str(folder), "--format", kind, "--max-per-device", "4"])
    assert main() == 0
    ast.parse(capsys.readouterr().out)


def test_bad_input_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    folder = str(write_finished(Path("results/s")))
    Path("results/new/runs").mkdir(parents=True)
    diverged = made_up_tables()
    diverged["recommendation"] = diverged["recommendation"].assign(choice="diverged")
    cases = {
        (folder, "--devices", "3"): "--devices: 3 devices cannot share the batch size",
        (folder, "--devices", "0"): "--devices: must be at least 1, got 0",
        (folder, "--max-per-device", "-1"): "--max-per-device: must be at least 1, got -1",
        ("results/new",): "results/new: is not finished",
        ("nothing.yaml",): "nothing.yaml: no such file",
        (str(write_finished(Path("results/d"), diverged)),): "results/d: every setting has a diverged run",
    }
    for arguments, message in cases.items():
        monkeypatch.setattr(sys, "argv", ["batchscape", "export", *arguments])
        assert main() == 1
        out, error = capsys.readouterr()
        assert out == ""
        assert error.startswith(message)
        assert error.count("\n") == 1


def test_a_missing_confirmation_is_no_reason_to_recommend_another_setting():
    folder = write_finished(Path("results/s"), confirmation={"enabled": True})
    with pytest.raises(UserError, match=r"tables/confirmation\.csv: cannot be read"):
        export(folder, "lightning", 1, None)


def test_a_missing_network_is_named_with_the_command_that_creates_it():
    folder = write_finished(Path("results/s"))
    (folder / "network.json").unlink()
    with pytest.raises(UserError, match=r"network\.json: cannot be read .* `batchscape run FILE`, where FILE is"):
        export(folder, "lightning", 1, None)
