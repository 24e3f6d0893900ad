"""Preparation of a source, and its summary."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from batchscape.config.data.arrays import ArraysConfig
from batchscape.config.data.images import DigitsConfig
from batchscape.data import digits
from batchscape.data.prepare import prepare
from batchscape.data.prepared import PreparedData, read_prepared, write_prepared
from batchscape.data.source import Fitted, ManifestEntry, RawDataset
from batchscape.data.spec import DataSpec
from batchscape.data.split import split
from tests.helpers.bad_images import encode_image, make_image, write_file
from tests.helpers.image_sets import image_folder, summary_line, write_12_bit_images, write_16_bit_png, write_images
from tests.helpers.objectives import images_of, labels_of


def test_prepared_data_is_the_split_of_the_source(prepared: PreparedData):
    source = digits.load(DigitsConfig())
    images, labels = source.arrays["inputs"].transpose(0, 3, 1, 2), source.arrays["targets"]
    train, validation, _ = split(1797, 0.2, "random", 0)
    assert (len(labels_of(prepared.train)), len(labels_of(prepared.validation))) == (1438, 359)
    assert np.array_equal(images_of(prepared.train), images[train])
    assert np.array_equal(labels_of(prepared.train), labels[train])
    assert np.array_equal(images_of(prepared.validation), images[validation])
    assert np.array_equal(labels_of(prepared.validation), labels[validation])


def test_configured_fraction_and_seed_are_used(prepared: PreparedData):
    assert len(labels_of(prepare(DigitsConfig(validation_fraction=0.5))[0].validation)) == 898
    other = prepare(DigitsConfig(split_seed=1))[0]
    assert not np.array_equal(images_of(other.validation), images_of(prepared.validation))


@pytest.mark.parametrize("fraction", [1e-9, 1 - 1e-9])
def test_fraction_that_leaves_a_side_empty_is_rejected_with_its_key(fraction: float, refusal: Callable):
    message = refusal(prepare, DigitsConfig(validation_fraction=fraction))
    assert message.startswith("data.validation_fraction: ")


PREPARE = """
import logging, sys
from pathlib import Path
from batchscape.config.data.images import ImageFolderConfig
from batchscape.data.prepare import prepare
logging.basicConfig(level=logging.INFO, stream=sys.stdout)
config = ImageFolderConfig(source="image_folder", path=sys.argv[1], image_size=(512, 512))
prepare(config, 2, path=Path(sys.argv[2]))
"""


def started(folder: Path, target: Path) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", PREPARE, str(folder), str(target)], stdout=subprocess.PIPE)


def test_killed_prepare_leaves_no_partial_result(tmp_path: Path):
    folder, target = tmp_path / "pets", tmp_path / "out" / "prepared.safetensors"
    for label, name in enumerate(("cats", "dogs")):
        for number in range(40):
            write_file(folder / name / f"{number}.jpg", encode_image(make_image(label, number), "JPEG"))

    def partials() -> list[Path]:
        return list(target.parent.glob(".*.partial")) if target.parent.exists() else []

    def kill_when(moment: Callable[[], bool]) -> None:
        process = started(folder, target)
        process.stdout.readline()  # it has started to read files
        while not moment():
            assert process.poll() is None, "it ended before it could be killed"
        assert not target.exists()
        process.kill()
        assert process.wait() == -signal.SIGKILL
        assert not target.exists()

    kill_when(lambda: True)
    assert partials() == []
    kill_when(lambda: partials() != [])
    kill_when(lambda: any(partial.stat().st_size > 1_000_000 for partial in partials()))
    assert len(partials()) == 1  # each attempt deletes the partial file of the previous one
    process = started(folder, target)
    process.communicate()
    assert process.returncode == 0
    assert list(target.parent.iterdir()) == [target]
    again = tmp_path / "again" / "prepared.safetensors"
    write_prepared(again, prepare(image_folder(folder, image_size=(512, 512)))[0])
    assert target.read_bytes() == again.read_bytes()
    assert len(labels_of(read_prepared(target).train)) == 64


def test_dark_images_are_reported(tmp_path: Path):
    for number, label in enumerate(("ants", "ants", "bees", "bees")):
        values = np.random.default_rng(number).integers(0, 2, (12, 12), np.uint8)
        write_file(tmp_path / label / f"{number}.png", encode_image(Image.fromarray(values), "PNG"))
    prepared = prepare(image_folder(tmp_path, validation_fraction=0.5))
    assert summary_line(prepared, "levels: ").startswith(
        "levels: pixel values range from 0 to 1 and use 2 of 256 levels; almost all are "
    )


def test_single_white_pixel_does_not_hide_dark_images(tmp_path: Path):
    write_12_bit_images(tmp_path)
    for file in tmp_path.rglob("*.png"):
        values = np.array(Image.open(file).resize((64, 64)))
        values[5, 5] = 65535
        write_16_bit_png(file, values)
    dark = prepare(image_folder(tmp_path, color="grayscale", image_size=(64, 64)))
    assert summary_line(dark, "levels: pixel values").startswith("levels: pixel values range from 0 to 255 and use ")
    assert "; almost all are in the darker half: " in summary_line(dark, "levels: pixel values")


def test_many_classes_are_summarized_by_the_smallest_and_largest(tmp_path: Path):
    write_images(tmp_path, [f"c{label:02}/{n}.png" for label in range(30) for n in range(2 + (label == 4))])
    prepared = prepare(image_folder(tmp_path))
    assert summary_line(prepared, "30 classes") == "30 classes: from c00 (2) to c04 (3)"


def test_test_side_is_drawn_from_the_training_images(prepared: PreparedData):
    tested = prepare(DigitsConfig(test_fraction=0.1)).data
    assert tested.test is not None
    assert [len(side) for side in tested.sides.values()] == [1258, 359, 180]
    assert np.array_equal(images_of(tested.validation), images_of(prepared.validation))
    source = digits.load(DigitsConfig())
    test = split(1797, 0.2, "random", 0, 0.1)[2]
    assert np.array_equal(images_of(tested.test), source.arrays["inputs"].transpose(0, 3, 1, 2)[test])
    assert np.array_equal(labels_of(tested.test), source.arrays["targets"][test])


def standardized(chunks: Iterable) -> Fitted:
    """Standardize inputs with the mean and standard deviation of the training side; count what is far away."""
    values = np.concatenate([chunk["inputs"] for chunk in chunks])
    again = np.concatenate([chunk["inputs"] for chunk in chunks])  # chunks can be iterated over again
    assert np.array_equal(values, again)
    mean, deviation = values.mean(), values.std()
    notes = []

    def transform(chunk: dict) -> dict:
        inputs = (chunk["inputs"] - mean) / deviation
        if (abs(inputs) > 1.7).any():
            notes.append(f"far: {(abs(inputs) > 1.7).sum()}")
        return {"inputs": inputs, "targets": chunk["codes"]}

    return Fitted(DataSpec("numbers", (1,), "class", ("no", "yes")), transform, notes)


def raw_source() -> RawDataset:
    arrays = {"inputs": np.arange(100.0)[:, np.newaxis], "codes": np.arange(100) % 2}
    return RawDataset(
        DataSpec("numbers", (1,), "class"),
        arrays,
        [ManifestEntry("a.csv", "1", examples=60), ManifestEntry("a.csv:9", "", reason="ragged: 3 columns"),
         ManifestEntry("b.csv", "2", examples=40)],
        sides=np.repeat([0, 1, 2], [60, 20, 20]),
        fit=standardized,
        locate=lambda row: f"line {row + 2}",
        key="data.path",
    )  # fmt: skip


def test_what_depends_on_the_training_side_is_fitted_to_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(digits, "load", lambda config, options: raw_source())  # noqa: ARG005
    prepared = prepare(DigitsConfig())
    training = np.arange(60.0)
    for name, values in (("train", training), ("validation", np.arange(60, 80)), ("test", np.arange(80, 100))):
        stored = prepared.data.sides[name].arrays
        expected = ((values - training.mean()) / training.std()).astype(np.float32)
        assert np.array_equal(stored["inputs"].numpy()[:, 0], expected)
        assert stored["targets"].tolist() == (values % 2).astype(int).tolist()
    assert [line for line in prepared.summary if "far" in line] == ["far: 2", "far: 20", "far: 20"]  # after writing
    assert prepared.summary[0] == (
        "100 of 101 examples are used: 60 for training, 20 for validation, 20 for testing; dropped: 1 ragged"
    )
    manifest = prepared.manifest
    assert manifest.columns.tolist() == ["file", "sha256", "class", "split", "reason", "examples"]
    assert manifest["examples"].sum() == 101
    assert manifest.loc[60].tolist() == ["a.csv:9", "", "", "", "ragged: 3 columns", 1]
    assert manifest.loc[61].tolist() == ["b.csv[0]", "2", "no", "validation", "", 1]


def test_value_that_is_not_finite_after_fitting_is_named_by_the_source(
    monkeypatch: pytest.MonkeyPatch, refusal: Callable
):
    source = raw_source()
    source.arrays["inputs"][70] = np.inf
    monkeypatch.setattr(digits, "load", lambda config, options: source)  # noqa: ARG005
    message = refusal(prepare, DigitsConfig())
    assert message.startswith("data.path: line 72: the input inf is NaN, infinite or too large for float32")


# A process that may use little memory prepares many times as much data.
LIMITED = """
import resource, sys
from pathlib import Path
import numpy as np
from pydantic import TypeAdapter
import PIL.Image
from batchscape.config.data.sources import DataConfig
from batchscape.data import arrays, image_folder, synthetic
from batchscape.data.prepare import prepare
import torch, pandas.core.groupby

PIL.Image.init()
limit = int(sys.argv[3])
used = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmData:")) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (used + limit, used + limit))
config = TypeAdapter(DataConfig).validate_json(sys.argv[1])
data = prepare(config, 1, sys.argv[4], Path(sys.argv[2])).data
print(sum(side.num_bytes for side in data.sides.values()))
try:
    bytearray(2 * limit)
except MemoryError:
    print("limited")
"""
LIMIT = 50_000_000


@pytest.fixture(scope="module")
def large_arrays() -> tuple[np.ndarray, np.ndarray]:
    """Images of 128 MB, more than twice what the process below may use, and their labels."""
    images = np.zeros((128, 1000, 1000, 1), np.uint8)
    images[:, 0, 0, 0] = np.arange(128)
    return images, np.arange(128) % 2


@pytest.mark.parametrize("source", ["npy", "npz", "compressed", "synthetic", "folder", "weights"])
def test_prepare_needs_less_memory_than_the_data(source: str, large_arrays: tuple, tmp_path: Path):
    images, labels = large_arrays
    section: dict = {"source": "arrays", "path": str(tmp_path / "data.npz"), "split": "first", "test_fraction": 0.1}
    if source == "npy":
        np.save(tmp_path / "data.npy", images)
        np.save(tmp_path / "labels.npy", labels)
        section |= {"path": str(tmp_path / "data.npy"), "labels": str(tmp_path / "labels.npy")}
    elif source == "npz":
        np.savez(tmp_path / "data.npz", images=images, labels=labels)
    elif source == "compressed":
        np.savez_compressed(tmp_path / "data.npz", images=images, labels=labels)
    elif source == "synthetic":
        section = {"source": "synthetic", "images": 128, "image_size": [1000, 1000], "channels": 1, "split": "first",
                   "test_fraction": 0.1}  # fmt: skip
    elif source == "weights":
        tokens = np.zeros((128, 250_001), np.uint8)
        np.savez(tmp_path / "data.npz", inputs=tokens, weights=np.ones((128, 250_000), np.float32))
    else:
        for number in range(128):
            image = Image.fromarray(np.full((10, 10), number, np.uint8))
            write_file(tmp_path / "set" / f"c{number % 2}" / f"{number:03}.png", encode_image(image, "PNG"))
        section = {"source": "image_folder", "path": str(tmp_path / "set"), "image_size": [1000, 1000],
                   "color": "grayscale"}  # fmt: skip
    target = tmp_path / "out" / "data.safetensors"
    task = "language_model" if source == "weights" else "classification"
    command = [sys.executable, "-c", LIMITED, json.dumps(section), str(target), str(LIMIT), task]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    num_bytes, is_limited = done.stdout.splitlines()
    assert int(num_bytes) >= 128_000_000 > 2 * LIMIT
    assert is_limited == "limited"
    assert list(target.parent.iterdir()) == [target]  # no scratch file is left
    if source in ("npy", "npz", "compressed"):
        sides = read_prepared(target).sides
        assert [len(side) for side in sides.values()] == [89, 26, 13]
        assert np.concatenate([side.arrays["inputs"][:, 0, 0, 0] for side in sides.values()]).tolist() == [*range(128)]


def test_scratch_files_disappear_if_prepare_fails(tmp_path: Path, refusal: Callable):
    np.savez(tmp_path / "data.npz", images=np.full((20, 8, 8), np.nan), labels=np.arange(20) % 2)
    config = ArraysConfig(source="arrays", path=str(tmp_path / "data.npz"))
    refusal(prepare, config, 1, "classification", tmp_path / "out" / "data.safetensors")
    assert list((tmp_path / "out").iterdir()) == []
