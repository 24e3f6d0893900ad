"""What a user or a disk may get wrong: each mistake is told in a line, and nothing else of an earlier study is lost."""

import ast
import hashlib
import json
import os
import pickle
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscape import tuning
from batchscape.__main__ import main
from batchscape.analysis.history import COLUMNS
from batchscape.config.data import ArraysConfig, ImageFolderConfig
from batchscape.config.tuning import SearchSpec, Tuned
from batchscape.data.prepare import prepare
from batchscape.data.prepared import prepared_digest, read_prepared
from batchscape.errors import UserError
from batchscape.files import read_json
from batchscape.frames import read_frame
from batchscape.study import Study
from batchscape.training.resume import RunState, read_state, write_state
from batchscape.training.run_directory import RunDirectory
from batchscape.weights import read_weights
from tests.workflow.conftest import PROJECT, Checkout

pytestmark = pytest.mark.slow

CONFIG = "config/tiny.yaml"
TINY = """\
name: tiny
data: {source: arrays, path: tiny.npz}
grid: {batch_sizes: [16], learning_rates: [0.1], seeds: [0]}
model: {name: mlp, dense: [4]}
training: {max_epochs: 2}
comparison: {fixed_lr: 0.1, high_lr: 0.1}
tuning: {trials: 2, coarse_trials: 2, epochs: 1, seeds: [5]}
"""
FOLDER = "results/tiny"
RUN = f"{FOLDER}/runs/bs16-lr0.1-seed0"
TUNED_RUN = f"{FOLDER}/runs/bs16-lrtuned-seed0"
DATA = f"{FOLDER}/data/images.safetensors"
SEARCH = f"{FOLDER}/tuning/bs16"
RUNS, TABLE = f"{FOLDER}/tables/runs.csv", f"{FOLDER}/tables/fixed_lr.csv"
AGAIN = "delete it so that it is made again"
TRAIN_AGAIN = "delete the run's folder so that it trains again"


def save_images(path: Path, **changed: np.ndarray) -> None:
    labels = np.arange(80) % 2
    images = np.random.default_rng(0).integers(0, 99, (80, 6, 6)) + 99 * labels[:, None, None]
    np.savez(path, **{"images": images.astype(np.uint8), "labels": labels, **changed})


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A finished part of a tiny study: two runs, the search, and two tables."""
    checkout = Checkout.at(tmp_path_factory.mktemp("tiny") / "checkout")
    (checkout.path / CONFIG).write_text(TINY)
    save_images(checkout.path / "tiny.npz")
    done = checkout.snakemake("--cores", "2", TABLE, "--configfile", CONFIG)
    assert done.returncode == 0, done.stdout[-3000:]
    return checkout


@pytest.fixture
def study(tiny: Checkout, tmp_path: Path) -> Iterator[Checkout]:
    """The tiny study, to be damaged: put back afterwards."""
    kept = ("results", "tiny.npz", CONFIG)
    for name in kept:
        copy = shutil.copytree if (tiny.path / name).is_dir() else shutil.copy2
        (tmp_path / name).parent.mkdir(exist_ok=True)
        copy(tiny.path / name, tmp_path / name)
    yield tiny
    shutil.rmtree(tiny.path / "results")
    for name in kept:
        copy = shutil.copytree if (tmp_path / name).is_dir() else shutil.copy2
        copy(tmp_path / name, tiny.path / name)


def digests(folder: Path) -> dict[str, str]:
    """The content of all files of all studies in a checkout, but of logs."""
    files = [path for path in (folder / "results").rglob("*") if path.is_file() and "logs" not in path.parts]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def refused(checkout: Checkout, *arguments: str, lost: tuple[str, ...] = ()) -> str:
    """Run what must fail; return its output. Only `lost` may be missing afterwards, and nothing may be another."""
    before = digests(checkout.path)
    done = checkout.snakemake("--cores", "2", *arguments)
    assert done.returncode != 0, done.stdout[-2000:]
    assert "Traceback" not in done.stdout, done.stdout[-3000:]
    after = digests(checkout.path)
    assert {name: digest for name, digest in before.items() if name not in lost} == after
    return done.stdout


def line_of(output: str, start: str) -> str:
    """The only line that starts so."""
    lines = [line for line in output.splitlines() if line.startswith(start)]
    assert len(lines) == 1, output[-3000:]
    return lines[0]


# Study files and command lines that are wrong. Snakemake itself reads both first: a --configfile that is not there, and
# a --config without a value, end in a traceback of its own, before any file of this project is read.


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["all", "--configfile", CONFIG, "config/smoke.yaml"], "--configfile: a study is one file that stands alone"),
        (["all", "--configfile", CONFIG, "--config", "tuning={trials: 0}"], "tuning.trials: must be at least 2, got 0"),
        (["all", "--configfile", CONFIG, "--config", "tunning={trials: 3}"], "tunning: is not a known key; did you"),
        (["all", "--configfile", CONFIG, "--config", "name=../smoke"], "got '../smoke'; write `name: my-study`"),
        (["all", "--configfile", CONFIG, "--config", "grid=5"], "grid: must be a section of keys and values, got 5"),
        (["results/smoke/report.html", "--configfile", CONFIG], "results/smoke/report.html: is not of the study tiny"),
        ([f"{RUN}9/run.json", "--configfile", CONFIG], "the study tiny has no run bs16-lr0.1-seed09"),
        (["al", "--configfile", CONFIG], "No rule to produce al"),
        ([f"{FOLDER}/tables/run.csv", "--configfile", CONFIG], "No rule to produce results/tiny/tables/run.csv"),
    ],
)
def test_a_wrong_command_ends_before_anything_runs(tiny: Checkout, arguments: list[str], said: str):
    output = refused(tiny, *arguments)
    assert len([line for line in output.splitlines() if said in line]) == 1, output
    assert "Job stats" not in output


BAD_FILES = {
    "broken": b"name: [tiny\n",
    "a tab": b"name: tiny\ngrid:\n\tseeds: [0]\n",
    "a list": b"- name: tiny\n",
    "a word": b"tiny\n",
    "empty": b"",
    "two documents": b"name: tiny\n---\nname: other\n",
    "a key twice": b"name: tiny\nname: other\n",
    "a section twice": b"name: tiny\ngrid: {seeds: [0]}\ngrid: {seeds: [1]}\n",
    "UTF-16": "name: tiny\n".encode("utf-16"),
    "Latin-1": "name: tiny # \xe9\n".encode("latin-1"),
    "a zero byte": b"name: ti\0ny\n",
    "binary": bytes(range(256)),
    "an unknown alias": b"name: *x\n",
    "an alias of itself": b"name: tiny\nmodel: {name: 'a:b', arguments: &x {x: *x}}\n",
    "a call": b"name: !!python/object/apply:os.mkdir [called]\n",
    "an object": b"name: tiny\ngrid: !!python/object:os.stat {}\n",
    "too deep": b"name: " + b"[" * 5000 + b"\n",
    "a huge whole number": b"name: tiny\ngrid: {batch_sizes: [1" + b"0" * 5000 + b"]}\n",
    "a whole number past 64 bits": b"name: tiny\ngrid: {seeds: [18446744073709551616]}\n",
    "a rate past all floats": b"name: tiny\ngrid: {learning_rates: [1e999]}\n",
    "nan": b"name: tiny\ncomparison: {fixed_lr: .nan}\n",
    "minus inf": b"name: tiny\ntraining: {weight_decay: -.inf}\n",
    "true for a number": b"name: tiny\ntraining: {max_epochs: true}\n",
    "a number for true": b"name: tiny\ntuning: {enabled: 1}\n",
    "a date": b"name: 2020-13-45\n",
    "sexagesimal": b"name: tiny\ntraining: {max_epochs: 1:30}\n",
    "an emoji": "name: \U0001f600\n".encode(),
    "a dot": b"name: .\n",
    "a very long name": b"name: " + b"x" * 101 + b"\n",
    "a pickle": pickle.dumps({"name": "tiny"}),
}


def checked(file: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What `python -m batchscape check FILE` prints when it refuses a file."""
    monkeypatch.setattr(sys, "argv", ["batchscape", "check", file])
    assert main() == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    lines = printed.err.splitlines()
    assert printed.err == "".join(f"{line}\n" for line in lines)
    return lines


@pytest.mark.parametrize("content", BAD_FILES.values(), ids=BAD_FILES.keys())
def test_a_study_file_that_is_none_is_told_in_a_line_that_names_it(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    Path("study.yaml").write_bytes(content)
    (line,) = checked("study.yaml", capsys, monkeypatch)
    assert line.startswith("study.yaml: ")
    assert len(line) < 400
    assert [path.name for path in tmp_path.iterdir()] == ["study.yaml"]


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_circle(path: Path) -> None:
    path.symlink_to(path.name)


def make_broken_link(path: Path) -> None:
    path.symlink_to("nowhere")


@pytest.mark.parametrize("make", [make_pipe, make_circle, make_broken_link, Path.mkdir, lambda path: None])
@pytest.mark.parametrize("name", ["study.yaml", "a\nb.yaml", "\U0001f600 {run}.yaml", "\udcff.yaml"])
def test_what_is_no_file_is_told_in_a_line_and_waited_for_by_nobody(
    make: Callable, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    make(Path(name))
    assert len(checked(name, capsys, monkeypatch)) == 1


@pytest.mark.parametrize("name", ["/dev/null", "/dev/zero", "/", "", ".", "x" * 300, "study.yaml/x"])
def test_no_path_is_read_that_is_no_file(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    assert len(checked(name, capsys, monkeypatch)) == 1
