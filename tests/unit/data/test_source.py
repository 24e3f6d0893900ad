"""Validation of images and labels; order of names."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from batchscape.config.data.arrays import ArraysConfig
from batchscape.data import arrays
from batchscape.data.inspect import inspect_source
from batchscape.data.interpret import from_arrays
from batchscape.data.source import join_names

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3), np.uint8)
LABELS = np.array(["b", "a", "b", "c", "a", "b"])


def config(path: Path, **keys) -> ArraysConfig:
    return ArraysConfig(source="arrays", path=str(path), **keys)


def test_integers_with_more_than_8_bits_are_rejected_with_a_hint(tmp_path: Path, refusal: Callable):
    np.savez(tmp_path / "pets.npz", images=IMAGES.astype(np.uint16) * 16, labels=LABELS)
    for function in (arrays.load, inspect_source):
        message = refusal(function, config(tmp_path / "pets.npz"))
        assert message.startswith("data.path: images are uint16; they must be uint8 or floats: divide ")
        assert "4095 for 12" in message


COUNTED = np.random.default_rng(1)
AGES = np.delete(np.arange(1, 117), [100, 105, 110])  # with some missing


@pytest.mark.parametrize(
    "labels",
    [
        COUNTED.choice(np.arange(25, 347), 58, replace=False).repeat(COUNTED.integers(1, 3, 58)),
        COUNTED.integers(0, 200, 150),
        np.repeat(AGES, 200),
        np.repeat(np.arange(-300, 300, 2), 50),
        np.arange(40, dtype=np.uint8),
    ],
    ids=["the first hour's", "about one each", "ages", "with gaps", "one each"],
)
def test_measured_integers_are_rejected_as_labels(tmp_path: Path, refusal: Callable, labels: np.ndarray):
    np.savez(tmp_path / "target.npz", images=np.zeros((len(labels), 2, 2), np.uint8), labels=labels)
    for function in (arrays.load, inspect_source):
        message = refusal(function, config(tmp_path / "target.npz"))
        different = f"the labels are {len(np.unique(labels))} different integers from {labels.min()} to "
        assert message.startswith(f"data.path: {different}{labels.max()}, ")
        assert "the labels as text" in message
    text = tmp_path / "text.npz"
    np.savez(text, images=np.zeros((len(labels), 2, 2), np.uint8), labels=labels.astype(str))
    assert len(arrays.load(config(text)).spec.classes) == len(np.unique(labels))


@pytest.mark.parametrize(
    "labels",
    [
        np.arange(100).repeat(5),
        np.arange(1000).repeat(3),
        np.arange(1, 103).repeat(10),
        np.array([3, 8]).repeat(4),
        np.arange(10),
        np.array([10, 20, 300, 5000]).repeat(2),
        np.arange(200).repeat(3).astype(bool),
    ],
    ids=["CIFAR-100", "ImageNet", "from 1", "two", "ten of one image", "codes", "bool"],
)
def test_numbered_classes_are_accepted(tmp_path: Path, labels: np.ndarray):
    np.savez(tmp_path / "set.npz", images=np.zeros((len(labels), 2, 2), np.uint8), labels=labels)
    assert len(arrays.load(config(tmp_path / "set.npz")).spec.classes) == len(np.unique(labels))


def test_named_classes_may_have_gaps():
    labels = np.arange(0, 300, 2)
    source = from_arrays(np.zeros((150, 2, 2), np.uint8), labels, [f"c{n}" for n in range(300)], "own", "data.source")
    assert source.arrays["targets"].tolist() == labels.tolist()


def test_names_are_sorted_naturally():
    assert join_names(["10", "2", "a10", "a9"]) == "2, 10, a9, a10"
