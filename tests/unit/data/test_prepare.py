"""Preparation of a source, and its summary."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from batchscape.config.data import DigitsConfig
from batchscape.data import digits
from batchscape.data.prepare import prepare
from batchscape.data.prepared import PreparedData, read_prepared, write_prepared
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
from batchscape.config.data import ImageFolderConfig
from batchscape.data.prepare import prepare
logging.basicConfig(level=logging.INFO, stream=sys.stdout)
config = ImageFolderConfig(source="image_folder", path=sys.argv[1], image_size=(512, 512))
prepare(config, 2, path=Path(sys.argv[2]))
"""


def started(folder: Path, target: Path) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", PREPARE, str(folder), str(target)], stdout=subprocess.PIPE)


def test_killed_prepare_leaves_no_partial_result(tmp_path: Path):
    folder, target = tmp_path / "pets", tmp_path / "out" / "images.safetensors"
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
    again = tmp_path / "again" / "images.safetensors"
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
