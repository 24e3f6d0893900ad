"""NumPy files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from batchscape.config.data.arrays import ArraysConfig
from batchscape.data import arrays
from batchscape.data.inspect import inspect_source

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3), np.uint8)
LABELS = np.array(["b", "a", "b", "c", "a", "b"])


def config(path: Path, **keys) -> ArraysConfig:
    return ArraysConfig(source="arrays", path=str(path), **keys)


def test_npz_file_and_two_npy_files_are_equivalent(tmp_path: Path):
    np.savez(tmp_path / "pets.npz", images=IMAGES, labels=LABELS)
    np.save(tmp_path / "images.npy", IMAGES)
    np.save(tmp_path / "labels.npy", LABELS)
    one = arrays.load(config(tmp_path / "pets.npz"))
    two = arrays.load(config(tmp_path / "images.npy", labels=str(tmp_path / "labels.npy")))
    for source in (one, two):
        assert np.array_equal(source.arrays["inputs"], IMAGES)
        assert source.spec.classes == ("a", "b", "c")
        assert source.arrays["targets"].tolist() == [1, 0, 1, 2, 0, 1]
    assert [(entry.file, entry.examples) for entry in one.entries] == [("pets.npz", 6)]


def test_channels_first_arrays_are_transposed(tmp_path: Path):
    np.savez(tmp_path / "pets.npz", images=np.moveaxis(IMAGES, -1, 1), labels=LABELS)
    assert np.array_equal(arrays.load(config(tmp_path / "pets.npz", channels="first")).arrays["inputs"], IMAGES)


@pytest.mark.parametrize(
    ("content", "keys", "expected"),
    [
        ({"images": IMAGES}, {}, "data.path: {path} has no array `labels`, only images"),
        ({"x": IMAGES, "y": LABELS}, {}, "data.path: {path} has no array `images`, only x, y"),
        ({"images": IMAGES, "labels": LABELS}, {"labels": "x.npy"}, "data.labels: {path} is an .npz file"),
        ({"images": IMAGES, "labels": LABELS[:5]}, {}, "data.path: labels of shape (5,) for 6 images"),
        ({"images": np.moveaxis(IMAGES, -1, 1), "labels": LABELS}, {}, "data.channels: images of shape (6, 3, 4, 5)"),
        (
            {"images": IMAGES[..., 0], "labels": LABELS},
            {"channels": "first"},
            "data.channels: images of shape (6, 4, 5)",
        ),
    ],
    ids=range(6),
)
def test_invalid_arrays_raise_one_line_errors(
    tmp_path: Path, refusal: Callable, content: dict, keys: dict, expected: str
):
    path = tmp_path / "pets.npz"
    np.savez(path, **content)
    assert refusal(arrays.load, config(path, **keys)).startswith(expected.format(path=path))


def test_missing_and_truncated_files_raise_one_line_errors(tmp_path: Path, refusal: Callable):
    path = tmp_path / "pets.npz"
    assert refusal(arrays.load, config(path)).startswith(f"data.path: {path} does not exist")
    np.savez(path, images=IMAGES, labels=LABELS)
    path.write_bytes(path.read_bytes()[:-100])
    assert refusal(arrays.load, config(path)).startswith(f"data.path: {path} cannot be read")
    np.save(tmp_path / "images.npy", IMAGES)
    assert refusal(arrays.load, config(tmp_path / "images.npy")).startswith("data.labels: is missing")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("digits.csv", b"label,pixel0,pixel1\n7,0,255\n"),
        ("digits.pkl", b"\x80\x04\x95pickled"),
        ("digits.npz", b""),
        ("digits.mat", b"MATLAB 5.0 MAT-file"),
    ],
)
def test_other_formats_are_rejected_with_a_hint(tmp_path: Path, refusal: Callable, name: str, content: bytes):
    (tmp_path / name).write_bytes(content)
    for function in (arrays.load, inspect_source):
        message = refusal(function, config(tmp_path / name))
        assert message.startswith(f"data.path: {tmp_path / name} is neither an .npy nor an .npz file; ")
        assert "np.savez(path, images=…, labels=…)" in message
    np.save(tmp_path / "images.npy", IMAGES)
    message = refusal(arrays.load, config(tmp_path / "images.npy", labels=str(tmp_path / name)))
    assert message.startswith(f"data.labels: {tmp_path / name} is neither")


def test_other_arrays_in_the_file_are_ignored(tmp_path: Path):
    np.savez(tmp_path / "pets.npz", images=IMAGES, labels=LABELS, notes=np.array([{"a": 1}], dtype=object))
    assert arrays.load(config(tmp_path / "pets.npz")).spec.classes == ("a", "b", "c")


@pytest.mark.parametrize("place", [60, 120, 200, 300])
def test_corrupt_compressed_file_raises_a_one_line_error(tmp_path: Path, refusal: Callable, place: int):
    path = tmp_path / "pets.npz"
    np.savez_compressed(path, images=IMAGES, labels=LABELS)
    content = bytearray(path.read_bytes())
    content[place : place + 8] = b"\xff" * 8
    path.write_bytes(content)
    assert refusal(arrays.load, config(path)).startswith(f"data.path: {path} cannot be read")


class Trap:
    def __reduce__(self) -> tuple:
        return (Path("sprung").touch, ())


def test_files_are_never_unpickled(tmp_path: Path, refusal: Callable, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    np.save("images.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    np.savez("pets.npz", images=IMAGES, labels=np.array([Trap()] * 6, dtype=object))
    assert "cannot be read" in refusal(arrays.load, config(Path("images.npy"), labels="images.npy"))
    assert "cannot be read" in refusal(arrays.load, config(Path("pets.npz")))
    assert not Path("sprung").exists()
