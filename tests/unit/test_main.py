"""The command line as a user meets it: its help, its version, and modules of the user."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from batchscape.__main__ import SOURCES, TASKS, _parser
from batchscape.cli.init import data_sections
from batchscape.config.base import IMPORT_PATH
from tests.helpers.checkout import PROJECT

COMMANDS = list(next(action for action in _parser()._actions if action.dest == "command").choices)


def test_the_sources_and_tasks_are_those_of_study_files():
    sections = {name: section for name, section in data_sections().items() if name != IMPORT_PATH}
    assert set(SOURCES) == set(sections)
    assert set(TASKS) == {task for section in sections.values() for task in section.tasks}


@pytest.mark.parametrize("command", [[], *([command] for command in COMMANDS)], ids=" ".join)
def test_help_fits_a_screen(command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as end:
        _parser().parse_args([*command, "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert end.value.code == 0
    assert len(lines) <= 23  # and a prompt
    assert max(map(len, lines)) <= 80


def test_help_lists_each_command_in_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "80")
    listed = re.findall(r"^    (\w+)  +\w", _parser().format_help(), re.MULTILINE)
    assert listed == COMMANDS


def test_version_is_that_of_the_package():
    done = subprocess.run([sys.executable, "-m", "batchscape", "--version"], capture_output=True, text=True, check=True)
    package = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert done.stdout == f"batchscape {package['version']}\n"


def test_the_installed_command_finds_modules_of_the_working_directory(tmp_path: Path):
    """As jobs do; the folder of the command itself comes first in the path of its Python."""
    (tmp_path / "losses.py").write_text("def broken(outputs, targets, reduction):\n    return outputs.no_such_name\n")
    (tmp_path / "mine.yaml").write_text("name: mine\ntask: {name: classification, loss: losses:broken}\n")
    command = tmp_path / "bin" / "batchscape"  # as pip writes it
    command.parent.mkdir()
    command.write_text("import sys\nfrom batchscape.__main__ import main\nsys.exit(main())\n")
    done = subprocess.run(
        [sys.executable, str(command), "check", "mine.yaml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("mine.yaml: task.loss: losses:broken fails: AttributeError: ")
