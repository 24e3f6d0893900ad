"""`batchscape verify` and `check` of studies of LightningModules: one line for what is left open or does not hold."""

from collections import deque
from collections.abc import Callable
from pathlib import Path

import pytest

from batchscape.cli.check import check
from batchscape.cli.verify import verify_study
from batchscape.data.prepare import prepare
from batchscape.errors import UserError
from batchscape.study.study import Study

STUDY = """
name: lit
data: {source: "tests.helpers.lightning:MnistLike", arguments: {count: 120}}
task: {loss: module}
model: {name: "tests.helpers.lightning:LitClassifier"}
optimizer: {name: module}
grid: {batch_sizes: [16, 32], learning_rates: [0.01], seeds: [0]}
"""
MODULE = "tests.helpers.lightning:LitClassifier"


@pytest.fixture
def write_study(write_module: Callable) -> Callable[..., Path]:
    """A function that writes a study file with an edit, whose data is prepared."""

    def write(old: str = "", new: str = "") -> Path:
        path = write_module("lit.yaml", STUDY.replace(old, new) if old else STUDY)
        study = Study.from_file(path)
        file = Path(study.paths.prepared_data)
        file.parent.mkdir(parents=True, exist_ok=True)
        prepare(study.data, task=study.task.name, path=file)
        return path.relative_to(Path.cwd())

    return write


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (
            "optimizer: {name: module}",
            "",
            f"lit.yaml: optimizer.name: {MODULE} has an optimizer of its own, configure_optimizers; write `optimizer: ",
        ),
        (
            "task: {loss: module}",
            "task: {loss: cross_entropy}",
            f"lit.yaml: task.loss: {MODULE} is a LightningModule with a loss of its own, training_step; write `task: ",
        ),
    ],
    ids=["optimizer", "loss"],
)
def test_check_asks_for_what_the_study_leaves_open(
    write_study: Callable, refusal: Callable, old: str, new: str, line: str
):
    assert refusal(check, write_study(old, new)).startswith(line)


def test_check_estimates_the_time_of_a_module(write_study: Callable):
    assert any("all trainings one after another take" in line for line in check(write_study()))


def test_verify_names_what_does_not_hold_and_writes_nothing(write_study: Callable):
    file = write_study("LitClassifier", "LitContrastive")
    before = sorted(Path("results").rglob("*"))
    lines: list[str] = []
    with pytest.raises(UserError) as error:
        deque(map(lines.append, verify_study(file)), maxlen=0)
    assert str(error.value) == "lit.yaml: does not hold: network and loss"
    assert lines[0] == "lit.yaml: batch size 16, learning rate 0.01; 84 training examples"
    assert lines[1].startswith("does not hold  network and loss: task.loss: module is not a mean over examples: 8")
    assert {line[:11] for line in lines[2:]} == {"not checked"}
    assert sorted(Path("results").rglob("*")) == before
