"""`batchscape completion`: a shell completes commands, values of options, and files."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from batchscape.__main__ import SHELLS, _parser
from batchscape.cli.completion import completion

# Completes the words that follow, the last one of which is incomplete, as bash does after the Tab key.
COMPLETE = """\
source batchscape.bash
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
COMP_LINE="$*"
COMP_POINT=${#COMP_LINE}
$(complete -p batchscape | grep -o -- '-F [^ ]*' | cut -d' ' -f2) batchscape "${COMP_WORDS[COMP_CWORD]}" ""
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["st"], ["status"]),
        (["init", "--data", "di"], ["diamonds", "digits"]),
        (["init", "--task", "reg"], ["regression"]),
        (["check", "stu"], ["study.yaml"]),
        (["run", "stu"], ["study.yaml"]),
        (["completion", "z"], ["zsh"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_bash_completes(tmp_path: Path, words: list[str], expected: list[str]):
    (tmp_path / "study.yaml").touch()
    (tmp_path / "batchscape.bash").write_text(completion(_parser(), "bash"))
    done = subprocess.run(
        ["bash", "-c", COMPLETE, "bash", "batchscape", *words], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert sorted(done.stdout.split()) == expected, done.stderr


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_of_each_shell_is_valid(shell: str):
    command = [sys.executable, "-m", "batchscape", "completion", shell]
    script = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "python_docs" in script
    if program := shutil.which(shell):
        subprocess.run([program, "-n"], input=script, text=True, check=True, capture_output=True)
