"""Arrays and made images."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from batchscape.config.data import ArraysConfig, SyntheticConfig
from batchscape.config.model import VggConfig
from batchscape.config.run import RunSpec
from batchscape.config.training import TrainingConfig
from batchscape.data import arrays, synthetic
from batchscape.data.inspect import inspect_source
from batchscape.data.prepare import prepare
from batchscape.data.prepared import write_prepared
from batchscape.data.source import from_arrays
from batchscape.io.run_directory import RunDirectory
from batchscape.training.train import train

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3), np.uint8)
LABELS = np.array(["b", "a", "b", "c", "a", "b"])


def config(path: Path, **keys) -> ArraysConfig:
    return ArraysConfig(source="arrays", path=str(path), **keys)


# Arrays.


def test_one_npz_file_or_two_npy_files_hold_the_same(tmp_path: Path):
    np.savez(tmp_path / "pets.npz", images=IMAGES, labels=LABELS)
    np.save(tmp_path / "images.npy", IMAGES)
    np.save(tmp_path / "labels.npy", LABELS)
    one = arrays.load(config(tmp_path / "pets.npz"))
    two = arrays.load(config(tmp_path / "images.npy", labels=str(tmp_path / "labels.npy")))
    for source in (one, two):
        assert np.array_equal(source.images, IMAGES)
        assert source.classes == ("a", "b", "c")
        assert source.labels.tolist() == [1, 0, 1, 2, 0, 1]
    assert one.entries[3].file == "pets.npz[3]"


def test_channels_may_come_first(tmp_path: Path):
    np.savez(tmp_path / "pets.npz", images=np.moveaxis(IMAGES, -1, 1), labels=LABELS)
    assert np.array_equal(arrays.load(config(tmp_path / "pets.npz", channels="first")).images, IMAGES)


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
    ids=str,
)
def test_arrays_that_do_not_fit_are_told_in_a_line(
    tmp_path: Path, refusal: Callable, content: dict, keys: dict, expected: str
):
    path = tmp_path / "pets.npz"
    np.savez(path, **content)
    assert refusal(arrays.load, config(path, **keys)).startswith(expected.format(path=path))


def test_files_that_are_missing_or_damaged_are_told_in_a_line(tmp_path: Path, refusal: Callable):
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
def test_a_file_that_is_none_of_numpys_is_told_with_the_way_to_one(
    tmp_path: Path, refusal: Callable, name: str, content: bytes
):
    (tmp_path / name).write_bytes(content)
    for look in (arrays.load, inspect_source):
        message = refusal(look, config(tmp_path / name))
        assert message.startswith(f"data.path: {tmp_path / name} is neither an .npy nor an .npz file; ")
        assert "np.savez(path, images=…, labels=…)" in message
    np.save(tmp_path / "images.npy", IMAGES)
    message = refusal(arrays.load, config(tmp_path / "images.npy", labels=str(tmp_path / name)))
    assert message.startswith(f"data.labels: {tmp_path / name} is neither")


def test_whole_numbers_of_more_than_8_bits_are_told_with_the_way_to_floats(tmp_path: Path, refusal: Callable):
    np.savez(tmp_path / "pets.npz", images=IMAGES.astype(np.uint16) * 16, labels=LABELS)
    for look in (arrays.load, inspect_source):
        message = refusal(look, config(tmp_path / "pets.npz"))
        assert message.startswith("data.path: images are uint16; they must be uint8, or floats from 0 to 1: divide ")
        assert "4095 for 12" in message


# Labels.

COUNTED = np.random.default_rng(1)
AGES = np.delete(np.arange(1, 117), [100, 105, 110])  # some nobody had


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
def test_measured_whole_numbers_are_no_classes(tmp_path: Path, refusal: Callable, labels: np.ndarray):
    np.savez(tmp_path / "target.npz", images=np.zeros((len(labels), 2, 2), np.uint8), labels=labels)
    for look in (arrays.load, inspect_source):
        message = refusal(look, config(tmp_path / "target.npz"))
        different = f"the labels are {len(np.unique(labels))} different integers from {labels.min()} to "
        assert message.startswith(f"data.path: {different}{labels.max()}, ")
        assert "the labels as text" in message
    text = tmp_path / "text.npz"
    np.savez(text, images=np.zeros((len(labels), 2, 2), np.uint8), labels=labels.astype(str))
    assert len(arrays.load(config(text)).classes) == len(np.unique(labels))


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
def test_classes_that_are_numbered_stay_classes(tmp_path: Path, labels: np.ndarray):
    np.savez(tmp_path / "set.npz", images=np.zeros((len(labels), 2, 2), np.uint8), labels=labels)
    assert len(arrays.load(config(tmp_path / "set.npz")).classes) == len(np.unique(labels))


def test_a_function_that_names_its_classes_may_number_them_with_gaps():
    labels = np.arange(0, 300, 2)
    source = from_arrays(np.zeros((150, 2, 2), np.uint8), labels, [f"c{n}" for n in range(300)], "own", "data.source")
    assert source.labels.tolist() == labels.tolist()


# What `check` says.


@pytest.mark.parametrize("channels", ["last", "first"])
def test_check_reads_of_the_images_the_header_alone(tmp_path: Path, refusal: Callable, channels: str):
    shape = (6, 400, 300, 3) if channels == "last" else (6, 3, 400, 300)
    np.save(tmp_path / "labels.npy", LABELS)
    images = np.lib.format.open_memmap(tmp_path / "images.npy", "w+", np.uint8, shape)  # a hole: it takes no room
    two = config(tmp_path / "images.npy", labels=str(tmp_path / "labels.npy"), channels=channels)
    np.savez(tmp_path / "pets.npz", images=images, labels=LABELS)
    content = bytearray((tmp_path / "pets.npz").read_bytes())
    content[200] ^= 1  # of the first image, so that the checksum is wrong
    (tmp_path / "pets.npz").write_bytes(content)
    one = config(tmp_path / "pets.npz", channels=channels)
    for asked in (one, two):
        what = "6 images of 400 × 300 pixels, channels: 3, uint8; 3 classes: a, b, c"
        assert inspect_source(asked) == ([f"data: {asked.path}: {what}"], (400, 300, 3), 3, (5, 1))
    assert "cannot be read" in refusal(arrays.load, one)


def test_check_sees_shapes_that_do_not_fit_as_the_job_does(tmp_path: Path, refusal: Callable):
    for name, content, expected in (
        ("few", {"images": IMAGES, "labels": LABELS[:5]}, "labels of shape (5,) for 6 images"),
        ("column", {"images": IMAGES, "labels": LABELS[:, None]}, "such as labels[:, 0], or for one-hot labels "),
        ("flat", {"images": LABELS, "labels": LABELS}, "the images have shape (6,)"),
        ("one", {"images": IMAGES, "labels": np.zeros(6, int)}, "only one class (0)"),
        ("objects", {"images": IMAGES, "labels": LABELS.astype(object)}, "it contains Python objects; save text with "),
    ):
        path = tmp_path / f"{name}.npz"
        np.savez(path, **content)
        message = refusal(inspect_source, config(path))
        assert expected in message
        assert refusal(prepare, config(path)) == message


def test_check_says_how_many_images_are_made():
    assert inspect_source(made(images=12)).lines == ["data: synthetic: 12 images"]


def test_other_arrays_in_the_file_do_not_matter(tmp_path: Path):
    np.savez(tmp_path / "pets.npz", images=IMAGES, labels=LABELS, notes=np.array([{"a": 1}], dtype=object))
    assert arrays.load(config(tmp_path / "pets.npz")).classes == ("a", "b", "c")


@pytest.mark.parametrize("place", [60, 120, 200, 300])
def test_a_damaged_compressed_file_is_told_in_a_line(tmp_path: Path, refusal: Callable, place: int):
    path = tmp_path / "pets.npz"
    np.savez_compressed(path, images=IMAGES, labels=LABELS)
    content = bytearray(path.read_bytes())
    content[place : place + 8] = b"\xff" * 8
    path.write_bytes(content)
    assert refusal(arrays.load, config(path)).startswith(f"data.path: {path} cannot be read")


class Trap:
    def __reduce__(self) -> tuple:
        return (Path("sprung").touch, ())


def test_nothing_in_a_file_is_unpickled(tmp_path: Path, refusal: Callable, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    np.save("images.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    np.savez("pets.npz", images=IMAGES, labels=np.array([Trap()] * 6, dtype=object))
    assert "cannot be read" in refusal(arrays.load, config(Path("images.npy"), labels="images.npy"))
    assert "cannot be read" in refusal(arrays.load, config(Path("pets.npz")))
    assert not Path("sprung").exists()


# Made images.


def made(**keys) -> SyntheticConfig:
    return SyntheticConfig(source="synthetic", **keys)


def test_made_images_have_the_size_number_and_classes_that_are_asked_for():
    source = synthetic.load(made(images=10, image_size=(6, 9), channels=2, classes=3))
    assert (source.images.shape, source.images.dtype) == ((10, 6, 9, 2), np.uint8)
    assert source.labels.tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]
    assert len(source.classes) == 3
    assert made(images=10, image_size=(6, 9)).known_size == (10, 6)


def test_made_images_are_a_function_of_the_seed():
    one, same, other = (synthetic.load(made(images=8, data_seed=seed)).images for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_without_noise_all_images_of_a_class_are_its_pattern_of_4_by_4_squares():
    source = synthetic.load(made(images=6, image_size=(8, 12), noise=0.0, classes=2))
    assert all(np.array_equal(source.images[label], source.images[label + 2]) for label in range(4))
    assert not np.array_equal(source.images[0], source.images[1])
    squares = source.images[0].reshape(4, 2, 4, 3, 3)
    assert (squares == squares[:, :1, :, :1]).all()


def test_a_small_network_learns_made_images(tmp_path: Path):
    data = prepare(made(images=400, image_size=(8, 8), classes=3)).data
    write_prepared(tmp_path / "data", data)
    training = TrainingConfig(max_epochs=15, patience=15)
    spec = RunSpec(batch_size=16, learning_rate=0.1, seed=0, model=VggConfig(channels=(8,)), training=training)
    run = RunDirectory(train(spec, tmp_path / "data", tmp_path / "run"))
    assert run.summary()["validation_accuracy_at_best"] > 0.9
