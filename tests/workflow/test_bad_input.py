"""Invalid input and damaged files: each error is reported in one line, and no other result of the study is lost."""

import ast
import hashlib
import math
import os
import pickle
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from batchscape.__main__ import main
from batchscape.config.data.arrays import ArraysConfig
from batchscape.config.data.images import ImageFolderConfig
from batchscape.config.run import Tuned
from batchscape.data.prepare import prepare
from batchscape.data.prepared import prepared_digest, read_prepared
from batchscape.errors import UserError
from batchscape.io.files import read_json
from batchscape.io.frames import read_frame
from batchscape.io.run_directory import RunDirectory
from batchscape.io.weights import write_weights
from batchscape.training.checkpoint import (
    CHECKPOINT,
    PREVIOUS_CHECKPOINT,
    TrainingState,
    read_checkpoint,
    write_checkpoint,
)
from batchscape.tuning.journal import open_journal
from tests.helpers.checkout import PROJECT, Checkout
from tests.helpers.dry_run import dry_run

pytestmark = pytest.mark.slow

CONFIG = "config/tiny.yaml"
TINY = """\
name: tiny
data: {source: arrays, path: tiny.npz}
grid: {batch_sizes: [16], learning_rates: [0.1], seeds: [0]}
model: {name: mlp, dense: [4]}
training: {budget: {epochs: 2}}
comparison: {fixed_learning_rate: 0.1, high_learning_rate: 0.1}
tuning: {startup_trials: 2, trial_budget: {epochs: 1}, seeds: [5], finalists: {settings: 0}, budget: 1}
confirmation: {enabled: false}
"""
FOLDER = "results/tiny"
RUN = f"{FOLDER}/runs/bs16-lr0.1-seed0"
TUNED_RUN = f"{FOLDER}/runs/bs16-lrtuned-seed0"
DATA = f"{FOLDER}/data/prepared.safetensors"
SEARCH = f"{FOLDER}/tuning/bs16"
RUNS, TABLE = f"{FOLDER}/tables/runs.csv", f"{FOLDER}/tables/fixed_lr.csv"
REMAKE_HINT = "delete it to create it again"
PREPARE_AGAIN = "delete it to prepare the data again"
RETRAIN_HINT = "delete the run's folder to train it again"


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
    """The tiny study, to be damaged; restored afterwards."""
    restored = ("results", "tiny.npz", CONFIG)
    for name in restored:
        copy = shutil.copytree if (tiny.path / name).is_dir() else shutil.copy2
        (tmp_path / name).parent.mkdir(exist_ok=True)
        copy(tiny.path / name, tmp_path / name)
    yield tiny
    shutil.rmtree(tiny.path / "results")
    for name in restored:
        copy = shutil.copytree if (tmp_path / name).is_dir() else shutil.copy2
        copy(tmp_path / name, tiny.path / name)


def file_digests(folder: Path) -> dict[str, str]:
    """Return digests of all files in `results`, except logs."""
    files = [path for path in (folder / "results").rglob("*") if path.is_file() and "logs" not in path.parts]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def run_failing(checkout: Checkout, *arguments: str, lost: tuple[str, ...] = (), made: tuple[str, ...] = ()) -> str:
    """Run a command that must fail, and return its output.

    Afterwards only files in `lost` may be missing and only files in `made` be new; all others are unchanged.
    """
    before = file_digests(checkout.path)
    done = checkout.snakemake("--cores", "2", *arguments)
    assert done.returncode != 0, done.stdout[-2000:]
    assert "Traceback" not in done.stdout, done.stdout[-3000:]
    after = file_digests(checkout.path)
    assert set(made) <= after.keys()
    after = {name: digest for name, digest in after.items() if name not in made}
    assert {name: digest for name, digest in before.items() if name not in lost} == after
    return done.stdout


def find_line(output: str, start: str) -> str:
    """Return the only line with this start."""
    lines = [line for line in output.splitlines() if line.startswith(start)]
    assert len(lines) == 1, output[-3000:]
    return lines[0]


# Invalid study files and command lines. Snakemake reads both first: a missing --configfile, and a --config without a
# value, end in its own traceback before any file of this project is read.


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["all", "--configfile", CONFIG, "config/smoke.yaml"], "--configfile: a study is one self-contained file"),
        (
            ["all", "--configfile", CONFIG, "--config", "tuning={startup_trials: 0}"],
            "tuning.startup_trials: must be at least 2",
        ),
        (["all", "--configfile", CONFIG, "--config", "tunning={budget: 3}"], "tunning: is not a known key; did you"),
        (["all", "--configfile", CONFIG, "--config", "name=../smoke"], "got '../smoke'; write `name: my-study`"),
        (["all", "--configfile", CONFIG, "--config", "grid=5"], "grid: must be a section of keys and values, got 5"),
        (["all", "--configfile", CONFIG, "--config", "name=0.7"], "got '0.7'; write `name: my-study`"),
        (
            ["all", "--configfile", CONFIG, "--config", "arms={mine: {learning_rates: {17: 0.1}}}"],
            "arms.mine.learning_rates: batch size 17 is not in grid.batch_sizes",
        ),
        (
            ["results/smoke/report.html", "--configfile", CONFIG],
            "results/smoke/report.html: does not belong to the study tiny",
        ),
        (
            ["./results/smoke/report.html", "--configfile", CONFIG],
            "results/smoke/report.html: does not belong to the study tiny",
        ),
        ([FOLDER, "--configfile", CONFIG], f"{FOLDER}: is the folder of the study tiny; request `all` to make what is"),
        ([TABLE, "-R", "results/smoke/x", "--configfile", CONFIG], "No rule to produce results/smoke/x"),
        ([f"{RUN}9/run.json", "--configfile", CONFIG], "the study tiny has no runs bs16-lr0.1-seed09"),
        (["al", "--configfile", CONFIG], "No rule to produce al"),
        ([f"{FOLDER}/tables/run.csv", "--configfile", CONFIG], "tables/run.csv: the study tiny does not make it, such"),
    ],
)
def test_invalid_command_fails_before_anything_runs(tiny: Checkout, arguments: list[str], expected: str):
    output = run_failing(tiny, *arguments)
    assert len([line for line in output.splitlines() if expected in line]) == 1, output
    assert "Job stats" not in output


@pytest.mark.parametrize(
    "values",
    [
        ["--configfile", "results/mine.yaml"],
        ["--configfile", CONFIG, "--report", "results/report.html"],
        ["--configfile", CONFIG, "--directory", "results/elsewhere"],
        ["--configfile", CONFIG, "--shadow-prefix", "results/shadow"],
    ],
)
def test_path_in_results_is_not_a_target_if_it_is_the_value_of_an_option(tiny: Checkout, values: list[str]):
    (tiny.path / "results" / "mine.yaml").write_text((tiny.path / CONFIG).read_text())
    elsewhere = tiny.path / "results" / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    shutil.copy(tiny.path / "tiny.npz", elsewhere)
    status, output = dry_run(tiny.path, ["--cores", "1", TABLE, *values])
    shutil.rmtree(elsewhere)
    for made in ("mine.yaml", "report.html"):
        (tiny.path / "results" / made).unlink(missing_ok=True)
    assert status == 0, output[-2000:]


def test_dry_run_prints_the_number_of_trainings_and_of_requested_gpus(tiny: Checkout):
    status, output = dry_run(tiny.path, ["--cores", "1", "all", "--configfile", CONFIG])
    assert status == 0, output[-2000:]
    counted = "tiny: 7 trainings: 2 runs, up to 2 in 1 search of 2 trials × 1 seed, or more that end early, "
    assert find_line(output, "tiny: ").startswith(counted)
    assert find_line(output, "GPUs per training: ").endswith("1 if the machine has GPUs, else 0")
    assert "\nReason:" not in output  # it would repeat all settings of each job
    assert "\nReasons:" in output
    slurm = ["--workflow-profile", "profiles/slurm"]
    status, output = dry_run(tiny.path, [*slurm, "all", "--configfile", CONFIG, "--set-resources", "train:mem_mb=1"])
    assert status == 0, output[-2000:]
    assert find_line(output, "GPUs per training: ").startswith(
        "GPUs per training: 0 (training.accelerator: auto requests"
    )


def test_forced_jobs_compute_again_and_reused_results_are_reported(study: Checkout):
    target = f"{FOLDER}/analysis/sharpness/bs16-lrtuned.csv"
    folder = study.path / FOLDER
    reused = "Reused, already complete for the same data, settings and code: "

    def run(*arguments: str) -> str:
        done = study.snakemake("--cores", "2", target, *arguments, "--configfile", CONFIG)
        assert done.returncode == 0, done.stdout[-3000:]
        return done.stdout

    def modification_times() -> list[int]:
        """Return when the weights and the cached rows of the analysis were written."""
        weights = study.path / TUNED_RUN / "weights" / "best.safetensors"
        (cached,) = (folder / "analysis/sharpness/.cache").glob("bs16-lrtuned-seed0-*.csv")
        return [path.stat().st_mtime_ns for path in (weights, cached)]

    assert reused not in run()
    before = modification_times()
    assert reused not in run("-F")
    after = modification_times()
    assert all(new > old for new, old in zip(after, before, strict=True))
    run("-F", "--touch")
    assert modification_times() == after
    search_log = folder / "logs/tune/bs16.log"
    assert "trial 1 (grid): " in search_log.read_text()
    trials = read_frame(folder / "analysis/lr_search/bs16.csv")

    run("--delete-all-output")
    assert not (study.path / TUNED_RUN / "run.json").exists()
    line = find_line(run(), reused)
    assert line.endswith(": 1 run and 1 search. To train again, add `-R train tune`.")
    assert modification_times() == after
    assert "trial 1 (grid): " not in search_log.read_text()
    assert read_frame(folder / "analysis/lr_search/bs16.csv").equals(trials)


def test_several_nodes_without_a_cluster_are_rejected_before_anything_runs(tiny: Checkout):
    output = run_failing(tiny, "all", "--configfile", CONFIG, "--config", "resources={nodes: 2}")
    assert find_line(output, "resources.nodes: 2, but all jobs run on this machine; ").endswith("write `nodes: 1`")


BAD_FILES = {
    "syntax error": b"name: [tiny\n",
    "tab": b"name: tiny\ngrid:\n\tseeds: [0]\n",
    "list": b"- name: tiny\n",
    "word": b"tiny\n",
    "empty": b"",
    "two documents": b"name: tiny\n---\nname: other\n",
    "duplicate key": b"name: tiny\nname: other\n",
    "duplicate section": b"name: tiny\ngrid: {seeds: [0]}\ngrid: {seeds: [1]}\n",
    "UTF-16": "name: tiny\n".encode("utf-16"),
    "Latin-1": "name: tiny # \xe9\n".encode("latin-1"),
    "zero byte": b"name: ti\0ny\n",
    "binary": bytes(range(256)),
    "unknown alias": b"name: *x\n",
    "recursive alias": b"name: tiny\nmodel: {name: 'a:b', arguments: &x {x: *x}}\n",
    "function call": b"name: !!python/object/apply:os.mkdir [called]\n",
    "object": b"name: tiny\ngrid: !!python/object:os.stat {}\n",
    "too deep": b"name: " + b"[" * 5000 + b"\n",
    "huge integer": b"name: tiny\ngrid: {batch_sizes: [1" + b"0" * 5000 + b"]}\n",
    "integer above 64 bits": b"name: tiny\ngrid: {seeds: [18446744073709551616]}\n",
    "rate above all floats": b"name: tiny\ngrid: {learning_rates: [1e999]}\n",
    "nan": b"name: tiny\ncomparison: {fixed_learning_rate: .nan}\n",
    "minus inf": b"name: tiny\noptimizer: {clip_norm: -.inf}\n",
    "true for a number": b"name: tiny\ntraining: {patience: true}\n",
    "a number for true": b"name: tiny\ntuning: {enabled: 1}\n",
    "date": b"name: 2020-13-45\n",
    "sexagesimal": b"name: tiny\ntraining: {budget: {epochs: 1}:30}\n",
    "emoji": "name: \U0001f600\n".encode(),
    "dot": b"name: .\n",
    "long name": b"name: " + b"x" * 101 + b"\n",
    "pickle": pickle.dumps({"name": "tiny"}),
}


def check_output(file: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the lines that `batchscape check FILE` prints when it rejects a file."""
    monkeypatch.setattr(sys, "argv", ["batchscape", "check", file])
    assert main() == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    lines = printed.err.splitlines()
    assert printed.err == "".join(f"{line}\n" for line in lines)
    return lines


@pytest.mark.parametrize("content", BAD_FILES.values(), ids=BAD_FILES.keys())
def test_invalid_study_file_is_reported_in_one_line_with_its_name(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    Path("study.yaml").write_bytes(content)
    (line,) = check_output("study.yaml", capsys, monkeypatch)
    assert line.startswith("study.yaml: ")
    assert len(line) < 400
    assert [path.name for path in tmp_path.iterdir()] == ["study.yaml"]


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_nothing(_: Path) -> None:
    pass


def make_symlink_loop(path: Path) -> None:
    path.symlink_to(path.name)


def make_broken_symlink(path: Path) -> None:
    path.symlink_to("nowhere")


@pytest.mark.parametrize("make", [make_pipe, make_symlink_loop, make_broken_symlink, Path.mkdir, make_nothing])
@pytest.mark.parametrize("name", ["study.yaml", "a\nb.yaml", "\U0001f600 {run}.yaml", "\udcff.yaml"])
def test_path_that_is_not_a_regular_file_is_reported_without_blocking(
    make: Callable, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    make(Path(name))
    assert len(check_output(name, capsys, monkeypatch)) == 1


@pytest.mark.parametrize("name", ["/dev/null", "/dev/zero", "/", "", ".", "x" * 300, "study.yaml/x"])
def test_path_outside_the_study_that_is_not_a_file_is_reported(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    assert len(check_output(name, capsys, monkeypatch)) == 1


# Damaged data, and damaged files of an earlier run.


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def with_content(content: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(content)

    return write


def without_column(name: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        read_frame(path).drop(columns=name).to_csv(path, index=False, na_rep="nan")

    return write


def drop_last_row(path: Path) -> None:
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


def replace_weights(path: Path) -> None:
    write_weights(path, {"a.weight": np.ones(3)}, ["a.weight"])


def with_images(**changed: np.ndarray) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        save_images(path, **changed)

    return write


HISTORY = f"{FOLDER}/analysis/history.csv"


@pytest.mark.parametrize(
    ("file", "damage", "target", "lost", "problem", "hint"),
    [
        (f"{RUN}/run.json", truncate, TABLE, (RUNS,), "does not match its schema (Invalid JSON: ", RETRAIN_HINT),
        (f"{RUN}/history.csv", truncate, HISTORY, (RUNS,), "is truncated in its last line", RETRAIN_HINT),
        (
            f"{SEARCH}/tuned.json",
            with_content(b'{"learning_rate": -1}'),
            f"{TUNED_RUN}/run.json",
            tuple(f"{TUNED_RUN}/{file}" for file in ("run.json", "history.csv")),
            "does not match its schema (learning_rate: Input should be greater than 0)",
            "delete it to resume the search from its journal",
        ),
        (RUNS, without_column("status"), TABLE, (TABLE,), "missing column status", "to create it again"),
        (RUNS, with_content(b""), TABLE, (TABLE,), "is not a valid CSV (No columns to parse from file)", REMAKE_HINT),
        (DATA, truncate, TABLE, (f"{FOLDER}/network.json",), "is corrupt or incomplete (", PREPARE_AGAIN),
    ],
    ids=["run.json", "history.csv", "tuned.json", "missing column", "empty table", "prepared data"],
)
def test_damaged_file_fails_the_job_that_reads_it_with_a_hint(
    study: Checkout, file: str, damage: Callable, target: str, lost: tuple[str, ...], problem: str, hint: str
):
    damage(study.path / file)
    line = find_line(run_failing(study, target, "--configfile", CONFIG, lost=lost), f"{file}: ")
    assert problem in line
    assert line.endswith(hint)


def test_damaged_file_is_made_again_after_following_the_hint(study: Checkout):
    journal = study.path / SEARCH / "optuna.journal"
    journal.write_text("garbage\n")
    (study.path / SEARCH / "tuned.json").unlink()
    tuned = f"{SEARCH}/tuned.json"
    lost = (f"{FOLDER}/analysis/lr_search/bs16.csv",)
    output = run_failing(study, tuned, "--configfile", CONFIG, lost=lost)
    line = find_line(output, f"{SEARCH}/optuna.journal: the search journal is corrupt or incomplete (")
    assert line.endswith("; delete it to search again")
    journal.unlink()
    done = study.snakemake("--cores", "2", tuned, "--configfile", CONFIG)
    assert done.returncode == 0, done.stdout[-2000:]


OBJECTS = np.array([{}] * 80, dtype=object)
BAD_ARRAYS = {
    "objects": with_images(images=OBJECTS),
    "object labels": with_images(labels=OBJECTS),
    "NaN": with_images(images=np.full((80, 6, 6), np.nan)),
    "64-bit integers": with_images(images=np.zeros((80, 6, 6), np.int64)),
    "complex numbers": with_images(images=np.zeros((80, 6, 6), complex)),
    "no images": with_images(images=np.zeros((0, 6, 6), np.uint8), labels=np.zeros(0, int)),
    "images without width": with_images(images=np.zeros((80, 6, 0), np.uint8)),
    "one label missing": with_images(labels=np.zeros(79, int)),
    "labels in two columns": with_images(labels=np.zeros((80, 2), int)),
    "real labels": with_images(labels=np.linspace(0, 1, 80)),
    "one class": with_images(labels=np.zeros(80, int)),
    "truncated": truncate,
    "empty": with_content(b""),
    "text": with_content(b"images\n"),
    "pickle": with_content(pickle.dumps({"images": OBJECTS})),
    "empty zip": lambda path: zipfile.ZipFile(path, "w").close(),
    "missing": Path.unlink,
    "folder": lambda path: (path.unlink(), path.mkdir()),
}


def error_line(function: Callable, *arguments: object) -> str:
    """Return the one line of a UserError; any other exception fails the test."""
    with pytest.raises(UserError) as caught:
        function(*arguments)
    message = str(caught.value)
    assert message.splitlines() == [message]
    return message


@pytest.mark.parametrize("damage", BAD_ARRAYS.values(), ids=BAD_ARRAYS.keys())
def test_arrays_that_are_not_images_are_reported_with_their_key(damage: Callable, tmp_path: Path):
    path = tmp_path / "tiny.npz"
    save_images(path)
    damage(path)
    assert error_line(prepare, ArraysConfig(source="arrays", path=str(path))).startswith("data")


def test_damaged_arrays_stop_the_study_without_losing_its_runs(study: Checkout):
    with_images(images=OBJECTS)(study.path / "tiny.npz")
    lost = (DATA, f"{FOLDER}/data/manifest.csv")
    output = run_failing(study, "all", "--configfile", CONFIG, lost=lost)
    assert "cannot be read as .npy or .npz" in find_line(output, "data.path: tiny.npz ")
    (study.path / "tiny.npz").unlink()
    output = run_failing(study, "all", "--configfile", CONFIG)
    assert find_line(output, f"{CONFIG}: data.path: tiny.npz does not exist").endswith("runs)")


def test_batch_size_above_the_number_of_images_fails_before_training(study: Checkout):
    config = study.path / CONFIG
    config.write_text(TINY.replace("[16]", "[8, 16, 65]"))
    shutil.rmtree(study.path / "results")
    output = run_failing(study, "all", "--configfile", CONFIG, made=(DATA, f"{FOLDER}/data/manifest.csv"))
    assert find_line(output, "grid.batch_sizes: 65 is more than the 64 training examples; ").endswith(
        "validation_fraction"
    )
    assert f"{FOLDER}/logs/network.log: grid.batch_sizes: 65 is" in output.partition("Failed jobs:")[2]


def test_zip_entries_are_never_written_outside(tmp_path: Path):
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "images.zip"
    image = BytesIO()
    Image.new("L", (6, 6)).save(image, "png")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("../../a/1.png", "/b/1.png", "../a", "c/../../d/1.png"):
            archive.writestr(name, image.getvalue())
        archive.writestr("a/bomb.png", bytes(50_000_000))
    config = ImageFolderConfig(source="image_folder", path=str(path), image_size=(6, 6))
    try:
        prepare(config)
    except UserError as error:
        assert len(str(error).splitlines()) == 1
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["images.zip", "in"]


# Whatever a file contains, its reader returns a value or raises a UserError of one line.


@pytest.fixture(scope="module")
def intact(tiny: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files for the readers below, in a folder of their own."""
    folder = tmp_path_factory.mktemp("intact")
    shutil.copytree(tiny.path / RUN, folder / "run")
    np.save(folder / "images.npy", np.zeros((4, 6, 6), np.uint8))
    np.save(folder / "labels.npy", [0, 1, 0, 1])
    for file in (DATA, RUNS, f"{SEARCH}/tuned.json", f"{SEARCH}/optuna.journal", "tiny.npz"):
        shutil.copy(tiny.path / file, folder)
    weights = {"a": np.ones(3, np.float32)}
    state = TrainingState(
        step=2,
        network=weights,
        optimizer={"0/momentum_buffer": np.ones(3, np.float32)},
        optimizer_values={},
        average={},
        best={},
        update_norms=np.ones(4),
        previous_weights=np.ones(3, np.float32),
        interval_sums=np.zeros(2),
        interval_values={},
        history=[{"epoch": 1}],
        best_evaluation=None,
        best_loss=math.inf,
        micro_batch=4,
    )
    write_checkpoint(folder, state, "me")
    shutil.copy(folder / CHECKPOINT, folder / PREVIOUS_CHECKPOINT)
    return folder


def run_of(path: Path) -> RunDirectory:
    return RunDirectory(path.parent)


READERS: dict[str, Callable[[Path], object]] = {
    "run/run.json": lambda path: run_of(path).summary(),
    "run/history.csv": lambda path: run_of(path).history(["epoch", "train_loss", "validation_accuracy", "noise_scale"]),
    "run/update_norms.npy": lambda path: run_of(path).update_norms(),
    "run/weights/best.safetensors": lambda path: RunDirectory(path.parents[1]).weights("best"),
    "prepared.safetensors": lambda path: (read_prepared(path), prepared_digest(path)),
    "tuned.json": lambda path: read_json(path, Tuned, REMAKE_HINT),
    "runs.csv": read_frame,
    "optuna.journal": open_journal,
    CHECKPOINT: lambda path: read_checkpoint(path.parent, "me"),
    "images.npy": lambda path: prepare(
        ArraysConfig(source="arrays", path=str(path), labels=str(path.with_name("labels.npy")))
    ),
    "tiny.npz": lambda path: prepare(ArraysConfig(source="arrays", path=str(path))),
}
POSITIONS = st.integers(0, 300) | st.integers(0, 20_000)
DAMAGES = st.lists(st.tuples(POSITIONS, st.integers(0, 3), st.binary(max_size=3)), min_size=1, max_size=3)


def read_damaged(intact: Path, name: str, content: bytes) -> str:
    """Return the error line of a reader for a file with this content, empty if it accepts it; restore the file."""
    path = intact / name
    before = path.read_bytes()
    try:
        path.write_bytes(content)
        READERS[name](path)
    except UserError as error:
        message = str(error)
        assert message.splitlines() == [message]
        assert str(path) in message
        return message
    finally:
        path.write_bytes(before)
    return ""


@pytest.mark.parametrize("name", READERS)
def test_damaged_file_is_read_or_rejected_in_one_line(intact: Path, name: str):
    content = (intact / name).read_bytes()

    @settings(deadline=None, derandomize=True, database=None, max_examples=100)
    @given(DAMAGES, st.none() | POSITIONS)
    def check_damage(changes: list[tuple[int, int, bytes]], length: int | None) -> None:
        damaged = content
        for position, deleted, inserted in changes:
            position %= len(content)
            damaged = damaged[:position] + inserted + damaged[position + deleted :]
        read_damaged(intact, name, damaged[:length])

    assert read_damaged(intact, name, content) == ""
    check_damage()


@pytest.mark.parametrize("name", [name for name in READERS if name not in (CHECKPOINT, "optuna.journal")])
def test_truncated_file_is_rejected(intact: Path, name: str):
    content = (intact / name).read_bytes()
    for length in (0, len(content) // 3, len(content) * 2 // 3, len(content) - 3):
        assert read_damaged(intact, name, content[:length]), length


def test_run_with_inconsistent_files_is_rejected(intact: Path):
    for name, damage in (("weights/best.safetensors", replace_weights), ("history.csv", drop_last_row)):
        before = (intact / "run" / name).read_bytes()
        damage(intact / "run" / name)
        damaged = (intact / "run" / name).read_bytes()
        (intact / "run" / name).write_bytes(before)
        assert read_damaged(intact, f"run/{name}", damaged).endswith(RETRAIN_HINT)


# No file is unpickled.


class Trap:
    """Creates a folder when it is unpickled."""

    def __init__(self, path: Path):
        self.path = str(path)

    def __reduce__(self) -> tuple:
        return os.mkdir, (self.path,)


def write_npy(path: Path, trap: Trap) -> None:
    with path.open("wb") as stream:
        np.save(stream, np.array([trap], dtype=object), allow_pickle=True)


def write_npz(path: Path, trap: Trap) -> None:
    with path.open("wb") as stream:
        np.savez(stream, images=np.array([trap], dtype=object), labels=np.array([trap], dtype=object))


PICKLED = {
    "pickle": lambda path, trap: path.write_bytes(pickle.dumps(trap)),
    "torch": lambda path, trap: torch.save({"state_dict": trap}, path),
    "npy": write_npy,
    "npz": write_npz,
}


@pytest.mark.parametrize("dump", PICKLED.values(), ids=PICKLED.keys())
@pytest.mark.parametrize("name", READERS)
def test_no_reader_executes_a_pickle(intact: Path, name: str, dump: Callable, tmp_path: Path):
    dump(tmp_path / "file", Trap(tmp_path / "trapped"))
    message = read_damaged(intact, name, (tmp_path / "file").read_bytes())
    assert message or name in (
        CHECKPOINT,
        "optuna.journal",
    )  # the previous one is read, a partial line left out
    assert not (tmp_path / "trapped").exists()


def test_trap_works_when_unpickled(tmp_path: Path):
    (tmp_path / "file").write_bytes(pickle.dumps(Trap(tmp_path / "trapped")))
    pickle.loads((tmp_path / "file").read_bytes())
    assert (tmp_path / "trapped").exists()


FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
FORBIDDEN_CALLS = {"eval", "exec", "read_pickle", "load_from_checkpoint", "unsafe_load", "full_load"}


def unsafe_statements(tree: ast.AST) -> Iterator[str]:
    """Yield what in a module may execute the content of a file."""
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        yield from (name for name in names if name.partition(".")[0] in FORBIDDEN_MODULES)
        if not isinstance(node, ast.Call):
            continue
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        function = ast.unparse(node.func)
        owner, _, name = function.rpartition(".")
        if (
            (name in FORBIDDEN_CALLS and owner in ("", "builtins", "pd", "yaml"))
            or (name == "load_from_checkpoint")
            or (owner == "torch" and name == "load" and keywords.get("weights_only") != "True")
            or (owner in ("np", "numpy") and name in ("load", "fromfile") and keywords.get("allow_pickle") != "False")
            or (owner == "yaml" and name == "load")
            or (name == "YAML" and keywords.get("typ") not in ("'safe'", "'base'"))  # base gives only strings
            or "resume_from_checkpoint" in keywords
            or "ckpt_path" in keywords
        ):
            yield ast.unparse(node)


def test_no_module_can_unpickle_or_execute_a_file():
    files = [*(PROJECT / "src").rglob("*.py"), *(PROJECT / "workflow").rglob("*.py")]
    assert len(files) > 100
    assert {
        file.name: unsafe for file in files if (unsafe := list(unsafe_statements(ast.parse(file.read_text()))))
    } == {}


@pytest.mark.parametrize(
    "code",
    [
        *("import pickle", "from joblib import load", "import torch.x, marshal", "eval('1')", "torch.load(path)"),
        *("torch.load(path, weights_only=False)", "np.load(path)", "np.load(path, allow_pickle=True)"),
        *("yaml.load(text)", "YAML(typ='unsafe').load(text)", "pd.read_pickle(path)", "trainer.fit(m, ckpt_path=p)"),
    ],
)
def test_unsafe_statement_is_found(code: str):
    assert list(unsafe_statements(ast.parse(code)))
