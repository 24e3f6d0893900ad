"""Image folders: which files are used, why others are dropped, and how 16-bit files are scaled."""

import hashlib
import itertools
import logging
import shutil
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from batchscape.data.image_folder import PREFETCH_PER_THREAD, load, map_in_order
from batchscape.data.listing import list_files
from batchscape.data.prepare import prepare
from batchscape.data.source import LoadOptions, ManifestEntry
from batchscape.runtime import read_progress as data_progress
from batchscape.runtime.read_progress import Progress
from tests.helpers.bad_images import (
    encode_image,
    make_image,
    make_truncated_png,
    write_bad_images,
    write_file,
    write_zip,
)
from tests.helpers.image_sets import (
    dropped_kinds,
    image_folder,
    summary_line,
    write_12_bit_images,
    write_16_bit_png,
    write_images,
)
from tests.helpers.objectives import images_of
from tests.helpers.waiting import TIMEOUT

GOOD = 6

config = partial(image_folder, image_size=(8, 10))


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A folder with every kind of file, and the kinds of reason for the dropped ones."""
    folder = tmp_path_factory.mktemp("bad")
    return folder, write_bad_images(folder, GOOD)


# Which files are used.


def test_usable_images_are_in_order_and_others_are_dropped_with_a_reason(bad):
    folder, expected = bad
    source = load(config(folder), LoadOptions(2))
    assert dropped_kinds(source) == expected
    used = [entry for entry in source.entries if not entry.reason]
    assert [entry.file for entry in used] == [f"{name}/{i:04}.jpg" for name in ("cats", "dogs") for i in range(GOOD)]
    assert source.spec.classes == ("cats", "dogs")
    assert (source.arrays["targets"].tolist(), source.arrays["targets"].dtype) == ([0] * GOOD + [1] * GOOD, np.int64)
    assert (source.arrays["inputs"].shape, source.arrays["inputs"].dtype) == ((2 * GOOD, 8, 10, 3), np.uint8)
    for image, entry in zip(source.arrays["inputs"], used, strict=True):
        with Image.open(folder / entry.file) as file:
            assert np.array_equal(image, np.asarray(file.resize((10, 8), Image.Resampling.BILINEAR)))


def test_every_readable_file_has_the_hash_of_its_bytes(bad):
    folder, expected = bad
    entries = load(config(folder), LoadOptions(2)).entries
    assert {entry.file for entry in entries} == set(list_files(folder))
    for entry in entries:
        broken = expected.get(entry.file) == "unreadable file"
        assert entry.sha256 == ("" if broken else hashlib.sha256((folder / entry.file).read_bytes()).hexdigest())


def test_reasons_have_the_details(bad):
    folder, _ = bad
    reasons = {entry.file: entry.reason for entry in load(config(folder)).entries}
    assert reasons["dogs/twice.jpg"] == "duplicate: of dogs/0000.jpg"
    assert reasons["dogs/again.jpg"] == "duplicate: of cats/0000.jpg, which is of another class"
    assert reasons["dogs/large.png"] == "too large: 100,000,000 pixels"
    assert reasons["dogs/larger.png"] == "too large: 400,000,000 pixels"
    assert reasons["cats/floats.tif"].startswith("unsupported colors: values from -1 to 7")
    assert "truncated" in reasons["cats/bytes.jpg"]


def test_summary_counts_dropped_files_by_kind(bad):
    line, classes, contradictory, *_ = prepare(config(bad[0]), 2).summary
    assert line.startswith("12 of 31 files are used: 10 for training, 2 for validation; dropped: ")
    assert "3 corrupt image" in line
    assert "2 not an image" in line
    left_out = "left out because they have no usable images: birds, fish"
    assert classes == f"2 classes: cats (6), dogs (6); {left_out}"
    assert contradictory.startswith("1 file is in two classes; ")


def test_result_is_independent_of_threads_and_of_packing(bad, tmp_path: Path):
    folder, _ = bad
    write_zip(tmp_path / "pets.zip", folder)
    one, three, packed = (
        load(config(path), LoadOptions(threads))
        for path, threads in ((folder, 1), (folder, 3), (tmp_path / "pets.zip", 3))
    )
    assert np.array_equal(one.arrays["inputs"], three.arrays["inputs"])
    assert one.entries == three.entries
    assert np.array_equal(one.arrays["inputs"], packed.arrays["inputs"])
    assert [entry for entry in one.entries if entry.file != "cats/gone.jpg"] == packed.entries


def test_drop_duplicates_false_uses_duplicates(bad):
    source = load(config(bad[0], drop_duplicates=False))
    assert "duplicate" not in dropped_kinds(source).values()
    assert len(source.arrays["inputs"]) == 2 * GOOD + 2


def test_jfif_only_drops_other_files(pets: Path):
    write_file(pets / "cats" / "2.png", encode_image(make_image(0, 2), "PNG"))
    late = encode_image(make_image(0, 3), "JPEG").replace(b"JFIF", b"NONE", 1) + b"JFIF"
    write_file(pets / "cats" / "3.jpg", late)
    assert dropped_kinds(load(config(pets))) == {}
    assert dropped_kinds(load(config(pets, jfif_only=True))) == {"cats/2.png": "not JFIF", "cats/3.jpg": "not JFIF"}


def test_classes_with_one_image_are_dropped_without_gaps(pets: Path):
    write_file(pets / "birds" / "0.jpg", encode_image(make_image(0, 9), "JPEG"))
    write_file(pets / "cows" / "0.jpg", encode_image(make_image(1, 9), "JPEG"))
    source = load(config(pets))
    assert dropped_kinds(source) == {"birds/0.jpg": "class of one image", "cows/0.jpg": "class of one image"}
    assert source.spec.classes == ("cats", "dogs")
    shutil.rmtree(pets / "birds")
    shutil.rmtree(pets / "cows")
    assert np.array_equal(source.arrays["inputs"], load(config(pets)).arrays["inputs"])


def test_classes_without_usable_images_are_logged(bad, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "batchscape")
    load(config(bad[0]), LoadOptions(2))
    assert caplog.messages[0] == f"{bad[0]}: reading 31 files, threads: 2"
    assert caplog.messages[-1].endswith(": birds, fish")


def test_folders_around_and_inside_classes_are_ignored(pets: Path, tmp_path: Path):
    expected = load(config(pets))
    (pets / "cats" / "old" / "older").mkdir(parents=True)
    (pets / "cats" / "1.jpg").rename(pets / "cats" / "old" / "older" / "1.jpg")
    pets.rename(tmp_path / "PetImages")
    for folder in ("outer/top", "outer/top/PetImages"):
        write_file(tmp_path / folder / "readme.txt", b"pets")
    (tmp_path / "PetImages").rename(tmp_path / "outer" / "top" / "PetImages" / "in")
    write_zip(tmp_path / "pets.zip", tmp_path / "outer")
    source = load(config(tmp_path / "pets.zip"))
    assert source.entries[1].file == "top/PetImages/in/cats/old/older/1.jpg"
    assert [entry for entry in source.entries if entry.reason] == [
        ManifestEntry(file, hashlib.sha256(b"pets").hexdigest(), "", "outside the class folders: no class")
        for file in ("top/PetImages/readme.txt", "top/readme.txt")
    ]
    assert np.array_equal(source.arrays["inputs"], expected.arrays["inputs"])
    assert np.array_equal(source.arrays["targets"], expected.arrays["targets"])


def test_single_class_is_rejected_with_its_name(pets: Path, refusal: Callable):
    shutil.rmtree(pets / "dogs")
    write_file(pets / "dogs" / "0.jpg", b"")
    message = refusal(load, config(pets))
    assert message.startswith(f"data.path: {pets} has usable images of one class only (cats); ")
    assert "of 3 files were dropped: 1 empty file;" in message


def test_folder_without_usable_images_is_rejected_with_counts_by_reason(tmp_path: Path, refusal: Callable):
    for name in ("1.jpg", "2.jpg"):
        write_file(tmp_path / name, b"hello")
    write_file(tmp_path / "cats" / "1.jpg", b"")
    message = refusal(load, config(tmp_path))
    assert message.startswith(f"data.path: {tmp_path} has no usable images; ")
    assert "of 3 files were dropped: 2 outside the class folders, 1 empty file;" in message


def test_too_little_space_is_reported_with_the_size_needed(pets: Path, refusal: Callable):
    message = refusal(load, config(pets, image_size=(2**24, 2**24)))
    assert message.startswith(
        "data.image_size: not enough space on the disk for 4 images of 16777216 × 16777216 pixels: 3,377,700 GB"
    )


def test_pixel_limit_is_that_of_pillow(pets: Path):
    # Both have almost no data, so the one within the limit is decoded and found corrupt.
    write_file(pets / "cats" / "within.png", make_truncated_png(Image.MAX_IMAGE_PIXELS, 1))
    write_file(pets / "cats" / "beyond.png", make_truncated_png(Image.MAX_IMAGE_PIXELS + 1, 1))
    assert dropped_kinds(load(config(pets))) == {"cats/beyond.png": "too large", "cats/within.png": "corrupt image"}


# Threads and log.


def test_map_in_order_preserves_order_and_limits_prefetching():
    started, lock = [], threading.Lock()

    def work(number: int) -> int:
        with lock:
            started.append(number)
        time.sleep(0.001 * (number % 3))
        return number

    for consumed, number in enumerate(map_in_order(work, range(60), 2), start=1):
        assert number == consumed - 1
        time.sleep(0.004)  # a slow consumer
        assert len(started) <= consumed + 2 * PREFETCH_PER_THREAD
    assert sorted(started) == list(range(60))


def test_map_in_order_uses_threads_concurrently():
    both = threading.Barrier(2, timeout=TIMEOUT)
    assert list(map_in_order(lambda number: both.wait() * 0 + number, range(4), 2)) == [0, 1, 2, 3]


def test_progress_is_logged_at_most_every_ten_seconds(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    caplog.set_level(logging.INFO, "batchscape")
    clock = itertools.count(0, 4)  # seconds; read once per update
    monkeypatch.setattr(data_progress.time, "monotonic", lambda: next(clock))
    progress = Progress("files", 2000)
    for _ in range(8):
        progress.update(250)
    progress.close()
    assert caplog.messages == [
        "750 of 2,000 files (37 %), about 20.0 s left",
        "1,500 of 2,000 files (75 %), about 8.0 s left",
        "2,000 files in 36.0 s",
    ]


def test_files_with_several_images_are_reported(tmp_path: Path):
    write_images(tmp_path, [f"{label}/{n}.png" for label in ("ants", "bees") for n in range(3)])
    first, second = (make_image(0, number, (12, 12)).convert("L") for number in (100, 101))
    for name, kind in (("ants/stack.tif", "TIFF"), ("bees/film.gif", "GIF"), ("ants/phone.jpg", "MPO")):
        write_file(tmp_path / name, encode_image(first, kind, save_all=True, append_images=[second]))
        first = first.rotate(90)
    write_file(tmp_path / "ants" / "one.tif", encode_image(second, "TIFF"))
    prepared = prepare(image_folder(tmp_path))
    assert summary_line(prepared, "pages: ") == "pages: 2 files contain several images, of which only the first is used"
    assert prepared.summary[0].startswith("10 of 10 files are used")


def test_12_bit_values_are_scaled_by_one_level_for_the_dataset(tmp_path: Path):
    write_12_bit_images(tmp_path)
    prepared = prepare(image_folder(tmp_path, color="grayscale"))
    images = {
        file: np.asarray(Image.open(tmp_path / file)).astype(int)
        for file in prepared.manifest["file"]
        if prepared.manifest.set_index("file").loc[file, "split"] == "train"
    }
    expected = [np.round(values * 255 / 4095) for values in images.values()]
    assert np.array_equal(images_of(prepared.data.train)[:, 0], expected)
    assert summary_line(prepared, "levels: 4,095").startswith(
        "levels: 4,095 is white in 20 files of 16 bits (their largest "
    )
    assert "darker half" not in summary_line(prepared, "levels: pixel values")


@pytest.mark.parametrize(
    ("brightest", "white"),
    [(3, 255), (255, 255), (256, 511), (1000, 1023), (16383, 16383), (16384, 32767), (40000, 65535)],
)
def test_white_level_has_the_smallest_sufficient_bit_depth(tmp_path: Path, brightest: int, white: int):
    for number, label in enumerate(("ants", "ants", "bees", "bees")):
        values = np.zeros((12, 12), np.uint16)
        values[number] = brightest if number == 2 else 1
        write_16_bit_png(tmp_path / label / f"{number}.png", values)
    prepared = prepare(image_folder(tmp_path, color="grayscale", validation_fraction=0.5))
    both = np.concatenate([images_of(prepared.data.train), images_of(prepared.data.validation)])
    assert both.max() == round(brightest * 255 / white)
    assert any(f"levels: {white:,} is white in 4 files" in line for line in prepared.summary)


def test_configured_white_level_is_used_and_larger_values_are_dropped(tmp_path: Path):
    for label in ("ants", "bees"):
        for number, value in enumerate((100, 200, 1200)):
            write_16_bit_png(
                tmp_path / label / f"{number}.png", np.full((12, 12), value + len(label) + (label == "ants"), np.uint16)
            )
    prepared = prepare(image_folder(tmp_path, color="grayscale", white_level=1000))
    reasons = prepared.manifest.set_index("file")["reason"]
    assert reasons["ants/2.png"] == "above data.white_level: its largest value is 1,205, white is 1,000"
    used = np.concatenate([images_of(prepared.data.train), images_of(prepared.data.validation)])
    assert set(used.ravel().tolist()) == {round(255 * value / 1000) for value in (104, 105, 204, 205)}
    assert "levels: 1,000 is white in 4 files of 16 bits (set by data.white_level)" in prepared.summary


def test_8_bit_files_are_not_scaled(tmp_path: Path):
    write_12_bit_images(tmp_path)
    rng = np.random.default_rng(1)
    plain = {f"ants/plain{n}.png": rng.integers(0, 256, (12, 12), np.uint8) for n in range(3)}
    for name, values in plain.items():
        write_file(tmp_path / name, encode_image(Image.fromarray(values), "PNG"))
    prepared = prepare(image_folder(tmp_path, color="grayscale"))
    side = prepared.manifest.set_index("file")["split"]
    images = {"train": images_of(prepared.data.train)[:, 0], "validation": images_of(prepared.data.validation)[:, 0]}
    for name, values in plain.items():
        assert (images[side[name]] == values).all(axis=(1, 2)).any()
    assert any("4,095 is white in 20 files of 16 bits" in line for line in prepared.summary)


def test_white_level_includes_test_images(tmp_path: Path):
    for side, count in {"train": 3, "val": 2, "test": 2}.items():
        for label, value in (("ants", 500), ("bees", 900)):
            for number in range(count):
                values = np.full((12, 12), value + 10 * number + (3000 if side == "test" else len(side)), np.uint16)
                write_16_bit_png(tmp_path / side / label / f"{number}.png", values)
    prepared = prepare(image_folder(tmp_path))
    assert any("levels: 4,095 is white in 14 files" in line for line in prepared.summary)
    assert images_of(prepared.data.train).max() == round(925 * 255 / 4095)
