"""Inspection of sources by `check`, without reading their images."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from batchscape.config.data.arrays import ArraysConfig
from batchscape.config.data.images import SyntheticConfig
from batchscape.data import arrays
from batchscape.data.inspect import inspect_source
from batchscape.data.prepare import prepare
from batchscape.data.spec import DataSpec
from tests.helpers.bad_images import write_file
from tests.helpers.image_sets import image_folder, split_names, write_images, write_network_drive

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3), np.uint8)
LABELS = np.array(["b", "a", "b", "c", "a", "b"])


def arrays_config(path: Path, **keys) -> ArraysConfig:
    return ArraysConfig(source="arrays", path=str(path), **keys)


@pytest.mark.parametrize("channels", ["last", "first"])
def test_check_reads_only_the_header_of_the_images(tmp_path: Path, refusal: Callable, channels: str):
    shape = (6, 400, 300, 3) if channels == "last" else (6, 3, 400, 300)
    np.save(tmp_path / "labels.npy", LABELS)
    images = np.lib.format.open_memmap(tmp_path / "images.npy", "w+", np.uint8, shape)  # a sparse file
    two = arrays_config(tmp_path / "images.npy", labels=str(tmp_path / "labels.npy"), channels=channels)
    np.savez(tmp_path / "pets.npz", images=images, labels=LABELS)
    content = bytearray((tmp_path / "pets.npz").read_bytes())
    content[200] ^= 1  # in the first image, so that the checksum is wrong
    (tmp_path / "pets.npz").write_bytes(content)
    one = arrays_config(tmp_path / "pets.npz", channels=channels)
    for source_config in (one, two):
        expected = "6 images of 400 × 300 pixels, channels: 3, uint8; 3 classes: a, b, c"
        inspection = inspect_source(source_config)
        assert inspection.lines == [f"data: {source_config.path}: {expected}"]
        assert inspection.counts == (5, 1)
        assert inspection.spec == DataSpec("images", (3, 400, 300), "class", ("a", "b", "c"))
    assert "cannot be read" in refusal(arrays.load, one)


def test_counts_of_arrays_that_give_the_split_or_groups_are_not_guessed(tmp_path: Path):
    sides = ["train"] * 5 + ["validation"]
    for name, content in {"split": sides, "groups": np.arange(6) // 2}.items():
        np.savez(tmp_path / f"{name}.npz", images=IMAGES, labels=LABELS, **{name: content})
        assert inspect_source(arrays_config(tmp_path / f"{name}.npz")).counts is None


def test_check_rejects_arrays_with_the_message_of_the_job(tmp_path: Path, refusal: Callable):
    for name, content, expected in (
        ("few", {"images": IMAGES, "labels": LABELS[:5]}, "labels of shape (5,) for 6 images"),
        ("column", {"images": IMAGES, "labels": LABELS[:, None]}, "such as labels[:, 0], or for one-hot labels "),
        ("flat", {"images": LABELS, "labels": LABELS}, "inputs are text; they must be numbers"),
        ("one", {"images": IMAGES, "labels": np.zeros(6, int)}, "only one class (0)"),
        ("objects", {"images": IMAGES, "labels": LABELS.astype(object)}, "it contains Python objects; save text with "),
    ):
        path = tmp_path / f"{name}.npz"
        np.savez(path, **content)
        message = refusal(inspect_source, arrays_config(path))
        assert expected in message
        assert refusal(prepare, arrays_config(path)) == message


def test_check_reports_the_number_of_synthetic_images():
    assert inspect_source(SyntheticConfig(source="synthetic", images=12)).lines == ["data: synthetic: 12 images"]


COUNTS = {"train": 8, "val": 3, "test": 2}


def test_check_counts_images_by_name(tmp_path: Path):
    write_images(tmp_path / "set", split_names("{side}/{label}", COUNTS))
    write_file(tmp_path / "set" / "val" / "notes" / "1.txt", b"no image")
    write_network_drive(tmp_path / "drive")
    inspection = inspect_source(image_folder(tmp_path / "set"))
    summary, split = inspection.lines
    sides = "train: 16, validation: 6, test: 4"
    assert summary == f"data: {tmp_path / 'set'}: 26 of 27 files are images of 2 classes, {sides}: ants (13), bees (13)"
    assert split == "data: split: given by the folders: train in train; validation in val; test in test"
    assert inspection.counts == (16, 6)
    (drive,) = inspect_source(image_folder(tmp_path / "drive")).lines
    assert drive.endswith(" files are images of 2 classes: ants (20), bees (20)")


def test_check_rejects_a_folder_without_classes(tmp_path: Path, refusal: Callable):
    write_images(tmp_path, ["1.png", "2.png"])
    assert "has no images in class folders; " in refusal(inspect_source, image_folder(tmp_path))
    write_images(tmp_path, ["ants/1.png", "ants/2.png"])
    write_file(tmp_path / "bees" / "1.txt", b"no image")
    assert "has images of one class only (ants); " in refusal(inspect_source, image_folder(tmp_path))
