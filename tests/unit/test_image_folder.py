"""Image files: their pixels, what is dropped and why, and what the folders around them say."""

import hashlib
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from batchscape.config.data import ImageFolderConfig
from batchscape.data.decode import Unusable, decode
from batchscape.data.image_folder import load
from batchscape.data.listing import state_of
from batchscape.data.prepare import prepare, summary
from batchscape.data.prepared import read_prepared
from batchscape.data.source import Source
from tests.bad_images import jpeg, make_folder, photograph, saved

RED = np.full((6, 8, 3), (200, 30, 10), np.uint8)


def config(path: Path, **keys) -> ImageFolderConfig:
    return ImageFolderConfig(source="image_folder", path=str(path), **{"image_size": (16, 12), **keys})


def as_is(content: bytes, size: tuple[int, int], colour: str = "rgb") -> np.ndarray:
    return decode(content, size, colour, "stretch").astype(int)


def png(image: Image.Image, **options) -> bytes:
    return saved(image, "PNG", **options)


# Pixels.


def test_pixels_of_a_lossless_file_are_its_own():
    pixels = photograph(0, 1)
    assert np.array_equal(decode(png(Image.fromarray(pixels)), (24, 30), "rgb", "stretch"), pixels)


def test_sixteen_bits_become_eight_by_division_and_are_not_clipped():
    values = np.array([[0, 257, 1000, 32768, 65535]], np.uint16)
    for kind in ("PNG", "TIFF"):
        grey = as_is(saved(Image.fromarray(values), kind), (1, 5), "grey")[0, :, 0]
        assert grey.tolist() == [0, 1, 4, 128, 255]
    colour = as_is(png(Image.fromarray(values)), (1, 5))
    assert colour.shape == (1, 5, 3)
    assert (colour == colour[..., :1]).all()


def test_inks_become_light():
    inks = Image.fromarray(np.array([[[0, 0, 0, 0], [255, 0, 0, 0], [0, 0, 0, 255]]], np.uint8), "CMYK")
    pixels = as_is(saved(inks.resize((24, 8), Image.Resampling.NEAREST), "JPEG", quality=100), (8, 24))
    white, cyan, black = pixels[4, 4], pixels[4, 12], pixels[4, 20]
    assert white.min() > 240
    assert cyan[0] < 30 and cyan[1:].min() > 225
    assert black.max() < 15


def test_what_is_transparent_lies_on_white():
    pixels = np.zeros((1, 3, 4), np.uint8)
    pixels[0, :, 3] = (255, 0, 128)
    found = as_is(png(Image.fromarray(pixels)), (1, 3))[0, :, 0]
    assert found[:2].tolist() == [0, 255]
    assert abs(found[2] - 127) <= 1
    palette = Image.new("P", (2, 1))
    palette.putpalette([200, 30, 10, 0, 0, 0])
    palette.putdata([0, 1])
    assert as_is(png(palette, transparency=1), (1, 2))[0].tolist() == [[200, 30, 10], [255, 255, 255]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photograph_stands_upright(orientation: int):
    upright = np.zeros((16, 24), np.uint8)
    upright[:8, :12] = 250  # bright on the upper left
    # How a camera stores it, by the EXIF standard: where row 0 and column 0 of the file are seen.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: upright.T[::-1],
        7: upright.T[::-1, ::-1],
        8: upright.T[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = as_is(jpeg(np.ascontiguousarray(stored), exif=exif), (16, 24), "grey")[..., 0]
    assert abs(found - upright).max() < 60
    assert abs(found - upright).mean() < 3


def test_shrinking_averages_over_all_pixels():
    board = np.indices((64, 64)).sum(0) % 2 * 255
    found = as_is(png(Image.fromarray(board.astype(np.uint8))), (8, 8), "grey")
    assert abs(found - 127.5).max() < 3


def test_stretching_keeps_all_and_cropping_keeps_the_middle_in_proportion():
    wide = np.zeros((10, 30), np.uint8)
    wide[:, 10:20] = 200
    content = png(Image.fromarray(wide))
    assert set(np.unique(decode(content, (10, 10), "grey", "crop"))) == {200}
    stretched = decode(content, (10, 30), "grey", "stretch")[..., 0]
    assert np.array_equal(stretched, wide)


def test_the_first_frame_of_an_animation_is_the_image():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("#ff0000", "#0000ff")]
    content = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert as_is(content, (2, 2))[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_every_mode_gives_the_channels_that_are_asked_for(mode: str):
    content = png(Image.fromarray(RED).convert("L").convert(mode) if mode != "RGB" else Image.fromarray(RED))
    assert decode(content, (3, 4), "rgb", "stretch").shape == (3, 4, 3)
    assert decode(content, (3, 4), "grey", "crop").shape == (3, 4, 1)


def test_floating_point_pixels_are_not_guessed_at():
    content = saved(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF")
    with pytest.raises(Unusable, match=r"^unknown scale: "):
        decode(content, (4, 4), "rgb", "stretch")


# Folders.


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("data") / "pets"
    return folder, make_folder(folder, 12)


def reasons(source: Source) -> dict[str, str]:
    return {entry.file: entry.reason.partition(":")[0] for entry in source.entries if entry.reason}


def test_exactly_what_cannot_be_used_is_dropped_with_its_reason(pets: tuple[Path, dict[str, str]]):
    folder, bad = pets
    source = load(config(folder), 2)
    assert reasons(source) == bad
    assert source.classes == ("cat", "dög")
    used = [entry for entry in source.entries if not entry.reason]
    assert len(used) == len(source.images) == len(source.labels)
    for entry, label in zip(used, source.labels, strict=True):
        assert entry.label == source.classes[label] == entry.file.split("/")[0]
        assert entry.sha256 == hashlib.sha256((folder / entry.file).read_bytes()).hexdigest()


def test_images_stand_in_the_order_of_their_entries(pets: tuple[Path, dict[str, str]]):
    folder, _ = pets
    source = load(config(folder, image_size=(24, 30)), 2)
    used = [entry.file for entry in source.entries if not entry.reason]
    assert used == sorted(used)
    for index, file in enumerate(used):
        if file.removesuffix(".jpg")[-1].isdigit():
            expected = np.asarray(Image.open(folder / file).convert("RGB"))
            assert np.array_equal(source.images[index], expected)


def test_the_number_of_threads_changes_nothing(pets: tuple[Path, dict[str, str]]):
    one, many = (load(config(pets[0]), threads) for threads in (1, 5))
    assert np.array_equal(one.images, many.images)
    assert one.entries == many.entries


@pytest.mark.parametrize("around", ["", "pets/", "deep/er/"])
def test_a_zip_file_is_as_good_as_the_folder(pets: tuple[Path, dict[str, str]], tmp_path: Path, around: str):
    folder, bad = pets
    path = tmp_path / "pets.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, f"{around}{file.relative_to(folder).as_posix()}")
    source, expected = load(config(path), 2), load(config(folder), 2)
    assert reasons(source) == {f"{around}{file}": kind for file, kind in bad.items()}
    assert np.array_equal(source.images, expected.images)
    assert source.classes == expected.classes


def test_copies_are_kept_if_asked_for(pets: tuple[Path, dict[str, str]]):
    source = load(config(pets[0], drop_duplicates=False), 2)
    assert {entry.file for entry in source.entries if not entry.reason} >= {"dög/copy.jpg", "dög/copy of a cat.jpg"}


def test_a_copy_in_another_class_is_told_as_such(pets: tuple[Path, dict[str, str]]):
    entries = {entry.file: entry.reason for entry in load(config(pets[0]), 2).entries}
    assert entries["dög/copy of a cat.jpg"] == "same file: as cat/0.jpg, which is of the class cat"
    assert entries["dög/copy.jpg"] == "same file: as dög/1.jpg"


def test_only_files_with_the_letters_jfif_in_their_first_ten_bytes_pass_the_option(tmp_path: Path):
    whole = jpeg(photograph(0, 1))
    assert whole[6:10] == b"JFIF"
    late = whole[:2] + b"\xff\xfe\x00\x06JUNK" + whole[2:]  # a comment first: JFIF is further on
    for name, content in {
        "a/1": whole,
        "a/2": jpeg(photograph(0, 2)),
        "a/late": late,
        "a/3.png": png(Image.new("L", (9, 9))),
    }.items():
        for label in "ab":
            path = tmp_path / name.replace("a/", f"{label}/")
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
    found = reasons(load(config(tmp_path, jfif_only=True, drop_duplicates=False), 1))
    assert found == {f"{label}/{file}": "no JFIF" for label in "ab" for file in ("3.png", "late")}


def test_files_that_cannot_be_read_are_dropped(tmp_path: Path):
    bad = make_folder(tmp_path / "pets", 3)
    (tmp_path / "pets" / "cat" / "gone.jpg").symlink_to(tmp_path / "nowhere")
    assert reasons(load(config(tmp_path / "pets"), 1)) == {**bad, "cat/gone.jpg": "cannot be read"}


def test_nothing_usable_is_an_error_that_says_what_there_was(tmp_path: Path, refusal: Callable):
    for label in "ab":
        (tmp_path / label).mkdir()
        (tmp_path / label / "1.jpg").write_bytes(b"")
        (tmp_path / label / "2.jpg").write_bytes(b"text")
    message = refusal(load, config(tmp_path), 1)
    assert message.startswith("data.path: ")
    assert "2 empty file, 2 no image" in message
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "it holds no files" in refusal(load, config(empty), 1)


def test_one_class_alone_is_refused(tmp_path: Path, refusal: Callable):
    (tmp_path / "cat").mkdir()
    for index in range(3):
        (tmp_path / "cat" / f"{index}.jpg").write_bytes(jpeg(photograph(0, index)))
    assert "only one class (cat)" in refusal(prepare, config(tmp_path))


def test_what_is_neither_folder_nor_zip_is_refused(tmp_path: Path, refusal: Callable):
    file = tmp_path / "pets.zip"
    assert refusal(load, config(file), 1).startswith(f"data.path: there is no {file}")
    file.write_bytes(b"PK\x03\x04 but no more")
    assert "neither a folder nor a whole zip file" in refusal(load, config(file), 1)


def test_a_damaged_file_in_a_zip_is_dropped_alone(tmp_path: Path):
    path = tmp_path / "pets.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for label in range(2):
            for index in range(3):
                archive.writestr(f"{'ab'[label]}/{index}.jpg", jpeg(photograph(label, index)))
    content = bytearray(path.read_bytes())
    content[content.index(b"a/1.jpg") + 200] ^= 0xFF
    path.write_bytes(content)
    assert reasons(load(config(path), 2)) == {"a/1.jpg": "cannot be read"}


# What stands in the study.


def test_the_manifest_gives_each_file_its_side_and_the_summary_counts(pets: tuple[Path, dict[str, str]]):
    folder, bad = pets
    data, manifest = prepare(config(folder), 2)
    assert list(manifest) == ["file", "sha256", "class", "split", "reason"]
    assert len(manifest) == sum(file.is_file() for file in folder.rglob("*"))
    for side, labels in (("train", data.train_labels), ("validation", data.validation_labels)):
        assert manifest.loc[manifest["split"] == side, "class"].tolist() == [data.classes[label] for label in labels]
    assert set(manifest.loc[manifest["split"] == "", "file"]) == set(bad)
    line = summary(manifest)[0]
    assert line.startswith(f"{len(manifest) - len(bad)} of {len(manifest)} files are used: ")
    assert "2 same file" in line


def test_a_class_that_is_missing_on_one_side_is_told(tmp_path: Path):
    for label, count in enumerate((30, 2)):
        (tmp_path / "ab"[label]).mkdir()
        for index in range(count):
            (tmp_path / "ab"[label] / f"{index:02}.jpg").write_bytes(jpeg(photograph(label, index)))
    _, manifest = prepare(config(tmp_path, split="first", validation_fraction=0.05))
    assert summary(manifest)[1:] == [
        "no image to train on of b: use another data.split_seed or data.split",
        "no image to validate on of a: use another data.split_seed or data.split",
    ]


def test_clutter_does_not_make_a_folder_another_one_but_an_image_does(tmp_path: Path):
    (tmp_path / "a").mkdir()
    image = tmp_path / "a" / "1.jpg"
    image.write_bytes(b"one")
    before = state_of(tmp_path)
    (tmp_path / "a" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / ".DS_Store").write_bytes(b"x")
    assert state_of(tmp_path) == before
    image.write_bytes(b"another")
    changed = state_of(tmp_path)
    assert changed != before
    image.rename(tmp_path / "a" / "2.jpg")
    assert state_of(tmp_path) != changed


PREPARE = """
import sys
from pathlib import Path
from batchscape.config.data import ImageFolderConfig
from batchscape.data.prepare import prepare
from batchscape.data.prepared import write_prepared
data, _ = prepare(ImageFolderConfig(source="image_folder", path=sys.argv[1], image_size=(256, 256)), 2)
print("writes", flush=True)
write_prepared(Path(sys.argv[2]), data)
"""


def test_a_killed_prepare_leaves_nothing_that_is_taken_for_whole(tmp_path: Path):
    make_folder(tmp_path / "pets", 150)
    target = tmp_path / "data" / "images.safetensors"
    command = [sys.executable, "-c", PREPARE, str(tmp_path / "pets"), str(target)]
    moments = []
    for delay in (0.0, 0.03, 0.06, 0.1):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            time.sleep(delay)
            os.kill(process.pid, signal.SIGKILL)
        moments.append(target.exists())
        if target.exists():  # then it is whole
            read_prepared(target)
            target.unlink()
    assert not all(moments)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    again, _ = prepare(config(tmp_path / "pets", image_size=(256, 256)), 1)
    assert np.array_equal(read_prepared(target).train_images, again.train_images)
    assert [file.name for file in target.parent.iterdir()] == [target.name]


def test_a_file_is_read_once(pets: tuple[Path, dict[str, str]], monkeypatch: pytest.MonkeyPatch):
    read = []
    original = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path) or original(path))
    load(config(pets[0]), 3)
    assert len(read) == len(set(read)) > 0
