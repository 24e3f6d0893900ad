"""Images from folders and zip files: which are used, what their pixels are, and why others are not."""

import hashlib
import itertools
import logging
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from batchscape.config.data import ImageFolderConfig
from batchscape.data.archive import UnusableFile
from batchscape.data.decode import decode_image
from batchscape.data.image_folder import PREFETCH_PER_THREAD, load, map_in_order
from batchscape.data.layout import class_root
from batchscape.data.listing import list_files, stat_digest
from batchscape.data.prepare import prepare
from batchscape.data.prepared import read_prepared, write_prepared
from batchscape.data.source import ManifestEntry
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
from tests.helpers.waiting import TIMEOUT

GOOD = 6


def config(path: Path | str, **keys) -> ImageFolderConfig:
    return ImageFolderConfig.model_validate(
        {"source": "image_folder", "path": str(path), "image_size": (8, 10)} | keys, strict=True
    )


def pixels(image: Image.Image, kind: str = "PNG", color: str = "rgb", **options) -> np.ndarray:
    """An image's pixels after it was a file, at its own size."""
    return decode_image(encode_image(image, kind, **options), image.size[::-1], "stretch", color)


def unusable(content: bytes) -> str:
    with pytest.raises(UnusableFile) as caught:
        decode_image(content, (8, 8), "stretch", "rgb")
    message = str(caught.value)
    assert message.splitlines() == [message]
    assert ": " in message
    assert "0x" not in message  # an address of memory would differ each time
    return message


def kinds(source) -> dict[str, str]:
    return {entry.file: entry.reason.partition(":")[0] for entry in source.entries if entry.reason}


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A folder with every kind of file, and what must be dropped."""
    folder = tmp_path_factory.mktemp("bad")
    return folder, write_bad_images(folder, GOOD)


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """A folder of two classes of two images each."""
    folder = tmp_path / "pets"
    for label, name in enumerate(("cats", "dogs")):
        for number in range(2):
            write_file(folder / name / f"{number}.jpg", encode_image(make_image(label, number), "JPEG"))
    return folder


# Which files are used.


def test_all_good_images_are_used_in_order_and_each_bad_one_is_dropped_with_its_kind(bad):
    folder, expected = bad
    source = load(config(folder), 2)
    assert kinds(source) == expected
    used = [entry for entry in source.entries if not entry.reason]
    assert [entry.file for entry in used] == [f"{name}/{i:04}.jpg" for name in ("cats", "dogs") for i in range(GOOD)]
    assert source.classes == ("cats", "dogs")
    assert (source.labels.tolist(), source.labels.dtype) == ([0] * GOOD + [1] * GOOD, np.int64)
    assert (source.images.shape, source.images.dtype) == ((2 * GOOD, 8, 10, 3), np.uint8)
    for image, entry in zip(source.images, used, strict=True):
        with Image.open(folder / entry.file) as file:
            assert np.array_equal(image, np.asarray(file.resize((10, 8), Image.Resampling.BILINEAR)))


def test_each_file_that_can_be_read_has_the_hash_of_its_bytes_whether_it_is_used_or_not(bad):
    folder, expected = bad
    entries = load(config(folder), 2).entries
    assert {entry.file for entry in entries} == set(list_files(folder))
    for entry in entries:
        broken = expected.get(entry.file) == "unreadable file"
        assert entry.sha256 == ("" if broken else hashlib.sha256((folder / entry.file).read_bytes()).hexdigest())


def test_reasons_say_what_a_person_needs_to_find_the_matter(bad):
    folder, _ = bad
    reasons = {entry.file: entry.reason for entry in load(config(folder)).entries}
    assert reasons["dogs/twice.jpg"] == "duplicate: of dogs/0000.jpg"
    assert reasons["dogs/again.jpg"] == "duplicate: of cats/0000.jpg, which is of another class"
    assert reasons["dogs/large.png"] == "too large: 100,000,000 pixels"
    assert reasons["dogs/larger.png"] == "too large: 400,000,000 pixels"
    assert reasons["cats/floats.tif"].startswith("unsupported colors: values from -1 to 7")
    assert "truncated" in reasons["cats/bytes.jpg"]


def test_the_manifest_sums_up_by_kinds(bad):
    line, classes, contradictory, *_ = prepare(config(bad[0]), 2).summary
    assert line.startswith("12 of 31 files are used: 10 for training, 2 for validation; dropped: ")
    assert "3 corrupt image" in line
    assert "2 not an image" in line
    left_out = "left out because they have no usable images: birds, fish"
    assert classes == f"2 classes: cats (6), dogs (6); {left_out}"
    assert contradictory.startswith("1 file is in two classes; ")


def test_the_number_of_threads_and_where_the_files_are_change_nothing(bad, tmp_path: Path):
    folder, _ = bad
    write_zip(tmp_path / "pets.zip", folder)
    one, three, packed = load(config(folder), 1), load(config(folder), 3), load(config(tmp_path / "pets.zip"), 3)
    assert np.array_equal(one.images, three.images)
    assert one.entries == three.entries
    assert np.array_equal(one.images, packed.images)
    assert [entry for entry in one.entries if entry.file != "cats/gone.jpg"] == packed.entries


def test_duplicates_stay_if_they_are_wanted(bad):
    source = load(config(bad[0], drop_duplicates=False))
    assert "duplicate" not in kinds(source).values()
    assert len(source.images) == 2 * GOOD + 2


def test_only_files_that_say_jfif_are_used_if_that_is_asked(pets: Path):
    write_file(pets / "cats" / "2.png", encode_image(make_image(0, 2), "PNG"))
    late = encode_image(make_image(0, 3), "JPEG").replace(b"JFIF", b"NONE", 1) + b"JFIF"
    write_file(pets / "cats" / "3.jpg", late)
    assert kinds(load(config(pets))) == {}
    assert kinds(load(config(pets, jfif_only=True))) == {"cats/2.png": "not JFIF", "cats/3.jpg": "not JFIF"}


def test_the_image_of_a_class_of_one_leaves_its_place_to_the_next(pets: Path):
    write_file(pets / "birds" / "0.jpg", encode_image(make_image(0, 9), "JPEG"))
    write_file(pets / "cows" / "0.jpg", encode_image(make_image(1, 9), "JPEG"))
    source = load(config(pets))
    assert kinds(source) == {"birds/0.jpg": "class of one image", "cows/0.jpg": "class of one image"}
    assert source.classes == ("cats", "dogs")
    shutil.rmtree(pets / "birds")
    shutil.rmtree(pets / "cows")
    assert np.array_equal(source.images, load(config(pets)).images)


def test_a_class_without_any_image_is_told_in_the_log(bad, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "batchscape")
    load(config(bad[0]), 2)
    assert caplog.messages[0] == f"{bad[0]}: reading 31 files, threads: 2"
    assert caplog.messages[-1].endswith(": birds, fish")


@pytest.mark.parametrize(
    ("names", "root"),
    [
        (["cats/1.jpg", "dogs/1.jpg"], ""),
        (["readme.pdf", "cats/1.jpg", "dogs/1.jpg"], ""),
        (["PetImages/cats/1.jpg", "PetImages/dogs/1.jpg"], "PetImages/"),
        (["readme.txt", "top/a.docx", "top/in/cats/1.jpg", "top/in/dogs/1.jpg"], "top/in/"),
        ([".git/x", "__MACOSX/top/cats/._1.jpg", "top/cats/1.jpg", "top/dogs/1.jpg"], "top/"),
        (["cats/old/1.jpg", "cats/1.jpg", "cats/new/2.jpg"], ""),
        (["cats/1.jpg"], ""),
        (["1.jpg"], ""),
        ([], ""),
    ],
)
def test_folders_around_the_classes_are_none_themselves(names: list[str], root: str):
    assert class_root(names) == root


def test_folders_around_the_classes_do_not_matter_nor_do_deeper_ones(pets: Path, tmp_path: Path):
    expected = load(config(pets))
    (pets / "cats" / "old" / "older").mkdir(parents=True)
    (pets / "cats" / "1.jpg").rename(pets / "cats" / "old" / "older" / "1.jpg")
    pets.rename(tmp_path / "PetImages")
    for folder in ("whole/top", "whole/top/PetImages"):
        write_file(tmp_path / folder / "readme.txt", b"pets")
    (tmp_path / "PetImages").rename(tmp_path / "whole" / "top" / "PetImages" / "in")
    write_zip(tmp_path / "pets.zip", tmp_path / "whole")
    source = load(config(tmp_path / "pets.zip"))
    assert source.entries[1].file == "top/PetImages/in/cats/old/older/1.jpg"
    assert [entry for entry in source.entries if entry.reason] == [
        ManifestEntry(file, hashlib.sha256(b"pets").hexdigest(), "", "outside the class folders: no class")
        for file in ("top/PetImages/readme.txt", "top/readme.txt")
    ]
    assert np.array_equal(source.images, expected.images)
    assert np.array_equal(source.labels, expected.labels)


def test_names_of_any_alphabet_are_kept_in_folders_and_in_zips(pets: Path, tmp_path: Path):
    (pets / "cats").rename(pets / "Füchse")
    (pets / "dogs").rename(pets / "犬")
    write_zip(tmp_path / "pets.zip", pets)
    for path in (pets, tmp_path / "pets.zip"):
        source = load(config(path))
        assert source.classes == ("Füchse", "犬")
        assert source.entries[-1].file == "犬/1.jpg"


def test_names_in_a_zip_are_read_as_the_program_that_packed_it_meant_them(tmp_path: Path):
    packed = tmp_path / "pets.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for folder in ("K\xe4tzchen", "Gr\xfcn\\tief"):
            for number in range(2):
                name = f"{folder}/{number}.jpg"
                archive.writestr(name, encode_image(make_image(len(folder), number), "JPEG"))
    # As macOS packs: UTF-8, and no flag that says so. Both places of a name have the flags.
    content = bytearray(packed.read_bytes())
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = content.find(signature)
        while at >= 0:
            flags = struct.unpack_from("<H", content, at + offset)[0]
            assert flags & 0x800
            struct.pack_into("<H", content, at + offset, flags & ~0x800)
            at = content.find(signature, at + 4)
    packed.write_bytes(content)
    source = load(config(packed))
    assert source.classes == ("Grün", "Kätzchen")
    assert source.entries[0].file == "Grün/tief/0.jpg"


def test_a_name_that_is_no_text_can_be_written_to_the_manifest(pets: Path):
    os.rename(os.fsencode(pets / "cats"), os.fsencode(pets) + b"/caf\xe9")  # noqa: PTH104 - a Path has no such name
    source = load(config(pets))
    assert source.classes == ("caf\\xe9", "dogs")
    assert source.entries[0].file.encode() == rb"caf\xe9/0.jpg"
    assert len(stat_digest(pets)) == 16


def test_a_link_to_a_folder_around_it_does_not_go_round_in_circles(pets: Path):
    expected = load(config(pets, drop_duplicates=False))
    (pets / "cats" / "all").symlink_to(pets)
    assert load(config(pets, drop_duplicates=False)).entries == expected.entries


def test_a_link_to_a_folder_elsewhere_is_followed(pets: Path, tmp_path: Path):
    (pets / "dogs").rename(tmp_path / "elsewhere")
    (pets / "dogs").symlink_to(tmp_path / "elsewhere")
    assert load(config(pets)).classes == ("cats", "dogs")


def test_a_pipe_is_not_waited_for(pets: Path):
    os.mkfifo(pets / "cats" / "pipe.jpg")
    assert kinds(load(config(pets))) == {"cats/pipe.jpg": "unreadable file"}


@pytest.fixture
def as_nobody() -> Iterator[Path]:
    """A folder, and no right to read what is forbidden in it, which root would have."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    Image.init()  # loads modules, which are perhaps for root alone
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    yield folder
    if is_root:
        os.seteuid(0)
    shutil.rmtree(folder)


def test_what_may_not_be_read_is_dropped(pets: Path, as_nobody: Path):
    effective = os.geteuid()
    os.seteuid(os.getuid())
    folder = as_nobody / "pets"
    shutil.copytree(pets, folder)
    for name in ("cats/2.jpg", "closed/0.jpg"):
        write_file(folder / name, encode_image(make_image(0, 5), "JPEG"))
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        path.chmod(0o755)
    (folder / "cats" / "2.jpg").chmod(0)
    (folder / "closed").chmod(0)
    os.seteuid(effective)
    source = load(config(folder))
    os.seteuid(os.getuid())
    (folder / "closed").chmod(0o755)
    assert kinds(source) == {"cats/2.jpg": "unreadable file", "closed": "unreadable file"}
    assert {entry.reason for entry in source.entries} == {
        "",
        "unreadable file: permission denied",
        "unreadable file: a folder that cannot be listed",
    }


def test_a_file_too_large_for_any_image_is_not_read(pets: Path):
    film = pets / "cats" / "film.mp4"
    with film.open("wb") as stream:
        stream.truncate(4 * Image.MAX_IMAGE_PIXELS + 1)  # a hole: it takes no room
    entry = next(entry for entry in load(config(pets)).entries if entry.file == "cats/film.mp4")
    assert (entry.sha256, entry.reason) == ("", "too large: 357,913,941 bytes")


def test_the_state_of_a_folder_changes_with_its_images_and_not_with_clutter(pets: Path):
    before = stat_digest(pets)
    write_file(pets / ".cache" / "index", b"x")
    write_file(pets / "cats" / "Thumbs.db", b"x")
    assert stat_digest(pets) == before
    write_file(pets / "cats" / "3.jpg", b"x")
    assert stat_digest(pets) != before


# Paths that are no such folder.


def packed_pets(pets: Path, tmp_path: Path) -> bytearray:
    write_zip(tmp_path / "whole.zip", pets)
    return bytearray((tmp_path / "whole.zip").read_bytes())


def test_a_path_without_anything_is_told(tmp_path: Path, refusal: Callable):
    assert refusal(load, config(tmp_path / "no")).startswith(f"data.path: {tmp_path / 'no'} does not exist")


def test_a_file_that_is_no_zip_is_told(tmp_path: Path, refusal: Callable):
    write_file(tmp_path / "pets.rar", b"Rar!\x1a\7\1\0")
    message = refusal(load, config(tmp_path / "pets.rar"))
    assert message.startswith(f"data.path: {tmp_path / 'pets.rar'} is neither a folder nor a zip file")


def test_a_zip_that_broke_off_is_told(pets: Path, tmp_path: Path, refusal: Callable):
    write_file(tmp_path / "cut.zip", packed_pets(pets, tmp_path)[:-200])
    assert "is a corrupt zip file" in refusal(load, config(tmp_path / "cut.zip"))


def test_an_encrypted_zip_is_told(pets: Path, tmp_path: Path, refusal: Callable):
    content = packed_pets(pets, tmp_path)
    content[content.index(b"PK\1\2") + 8] |= 1
    write_file(tmp_path / "secret.zip", content)
    assert f"{tmp_path / 'secret.zip'} is encrypted" in refusal(load, config(tmp_path / "secret.zip"))


# Offsets in a file's entry in the directory: the version needed to unpack it, and the way it is packed (9 is Deflate64,
# which Windows uses for large files).
@pytest.mark.parametrize(("offset", "value"), [(6, 99), (10, 9)])
def test_a_zip_packed_in_an_unknown_way_is_told(pets: Path, tmp_path: Path, offset: int, value: int, refusal: Callable):
    content = packed_pets(pets, tmp_path)
    content[content.index(b"PK\1\2") + offset] = value
    write_file(tmp_path / "new.zip", content)
    assert "uses an unsupported compression method" in refusal(load, config(tmp_path / "new.zip"))


def test_a_file_that_is_a_patch_of_another_one_is_dropped_alone(pets: Path, tmp_path: Path):
    write_file(pets / "cats" / "2.jpg", encode_image(make_image(0, 2), "JPEG"))
    content = packed_pets(pets, tmp_path)
    content[content.rindex(b"PK\1\2", 0, content.rindex(b"cats/2.jpg")) + 8] |= 1 << 5
    write_file(tmp_path / "patch.zip", content)
    assert kinds(load(config(tmp_path / "patch.zip"))) == {"cats/2.jpg": "unreadable file"}


def test_a_damaged_file_in_a_zip_is_dropped_alone(pets: Path, tmp_path: Path):
    write_file(pets / "cats" / "2.jpg", encode_image(make_image(0, 2), "JPEG"))
    write_zip(tmp_path / "pets.zip", pets)
    content = bytearray((tmp_path / "pets.zip").read_bytes())
    with zipfile.ZipFile(tmp_path / "pets.zip") as archive:
        at = archive.getinfo("cats/2.jpg").header_offset + 300
    content[at : at + 8] = bytes(byte ^ 255 for byte in content[at : at + 8])
    write_file(tmp_path / "pets.zip", content)
    assert kinds(load(config(tmp_path / "pets.zip"))) == {"cats/2.jpg": "unreadable file"}


def test_one_class_alone_is_told_with_its_name(pets: Path, refusal: Callable):
    shutil.rmtree(pets / "dogs")
    write_file(pets / "dogs" / "0.jpg", b"")
    message = refusal(load, config(pets))
    assert message.startswith(f"data.path: {pets} has usable images of one class only (cats); ")
    assert "of 3 files were dropped: 1 empty file;" in message


def test_nothing_usable_is_told_with_the_counts_by_reason(tmp_path: Path, refusal: Callable):
    for name in ("1.jpg", "2.jpg"):
        write_file(tmp_path / name, b"hello")
    write_file(tmp_path / "cats" / "1.jpg", b"")
    message = refusal(load, config(tmp_path))
    assert message.startswith(f"data.path: {tmp_path} has no usable images; ")
    assert "of 3 files were dropped: 2 outside the class folders, 1 empty file;" in message


def test_images_that_no_memory_holds_are_told(pets: Path, refusal: Callable):
    message = refusal(load, config(pets, image_size=(2**24, 2**24)))
    assert message.startswith(
        "data.image_size: not enough memory for 4 images of 16777216 × 16777216 pixels: 3,377,700 GB"
    )


# Pixels.


def test_an_image_of_the_size_that_is_asked_keeps_its_pixels():
    image = make_image(0, 0)
    assert np.array_equal(pixels(image), np.asarray(image))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_are_scaled_to_8_and_not_cut_off(kind: str):
    values = np.arange(0, 65536, dtype=np.uint16).reshape(256, 256)
    expected = (values.astype(int) + 128) // 257
    assert expected[-1, -1] == 255
    assert np.array_equal(pixels(Image.fromarray(values), kind, "grayscale")[..., 0], expected)


def test_big_endian_16_bits_are_the_same():
    header = b"P5 2 1 65535\n"
    assert decode_image(
        header + struct.pack(">HH", 257 * 7, 65535), (1, 2), "stretch", "grayscale"
    ).ravel().tolist() == [
        7,
        255,
    ]


def test_transparent_16_bits_are_white():
    image = Image.fromarray(np.array([[257, 514]], np.uint16))
    assert pixels(image, "PNG", "grayscale", transparency=257).ravel().tolist() == [255, 2]


def test_floats_from_0_to_1_become_bytes_and_others_are_dropped():
    image = Image.fromarray(np.array([[0, 0.2, 1]], np.float32))
    assert pixels(image, "TIFF", "grayscale").ravel().tolist() == [0, 51, 255]
    for values in ([[0, 1.01]], [[-0.01, 1]], [[0, np.nan]]):
        assert unusable(encode_image(Image.fromarray(np.array(values, np.float32)), "TIFF")).startswith(
            "unsupported colors: "
        )


def test_integers_of_32_bits_are_those_of_16_or_dropped():
    assert pixels(Image.fromarray(np.array([[0, 65535]], np.int32)), "TIFF", "grayscale").ravel().tolist() == [0, 255]
    for values in ([[0, 65536]], [[-1, 0]]):
        assert unusable(encode_image(Image.fromarray(np.array(values, np.int32)), "TIFF")).startswith(
            "unsupported colors: "
        )


def test_lab_colours_are_those_that_they_name():
    # In bytes: lightness of 255, then two axes of colour around 128.
    white, black = (255, 128, 128), (0, 128, 128)
    for color in ("rgb", "grayscale"):
        assert (pixels(Image.new("LAB", (4, 4), white), "TIFF", color) >= 254).all()
        assert (pixels(Image.new("LAB", (4, 4), black), "TIFF", color) <= 1).all()


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_inks_take_light_away(kind: str):
    inks = np.array([0, 51, 255, 102])  # of 255; in JPEG files Adobe stores them inverted
    image = Image.new("CMYK", (16, 16), tuple(inks.tolist()))
    options = {"quality": 100} if kind == "JPEG" else {}
    expected = (255 - inks[:3]) * (255 - inks[3]) / 255
    assert np.abs(pixels(image, kind, **options)[5, 5] - expected).max() <= 2


def test_grey_images_get_three_equal_channels_and_coloured_ones_their_luma():
    assert pixels(Image.new("L", (2, 2), 77)).ravel().tolist() == [77] * 12
    assert pixels(Image.new("1", (2, 2), 1)).ravel().tolist() == [255] * 12
    luma = 0.299 * 200 + 0.587 * 100 + 0.114 * 50
    grey = pixels(Image.new("RGB", (2, 2), (200, 100, 50)), color="grayscale")
    assert grey.shape == (2, 2, 1)
    assert np.abs(grey - luma).max() <= 0.5


def test_a_palette_is_looked_up():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    assert pixels(image).tolist() == [[[10, 20, 30], [40, 50, 60]]]
    assert pixels(image, "GIF").tolist() == [[[10, 20, 30], [40, 50, 60]]]


def test_what_is_transparent_is_white():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    assert pixels(image, transparency=0).tolist() == [[[255, 255, 255], [40, 50, 60]]]
    partly = pixels(image, transparency=bytes([255, 51]))[0]
    assert partly[0].tolist() == [10, 20, 30]
    assert np.abs(partly[1] - (np.array([40, 50, 60]) * 0.2 + 255 * 0.8)).max() <= 1
    assert pixels(Image.new("RGBA", (1, 1), (10, 20, 30, 0))).ravel().tolist() == [255, 255, 255]
    assert pixels(Image.new("LA", (1, 1), (10, 0))).ravel().tolist() == [255, 255, 255]
    assert pixels(Image.new("L", (1, 1), 7), transparency=7).ravel().tolist() == [255, 255, 255]
    assert pixels(Image.new("RGB", (1, 1), (7, 8, 9)), transparency=(7, 8, 9)).ravel().tolist() == [255, 255, 255]


# Where a camera that was held otherwise stores the top left corner of the picture: (row, column) from the top left.
CORNERS = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (-1, 0), 7: (-1, -1), 8: (0, -1)}


@pytest.mark.parametrize("orientation", CORNERS)
def test_a_picture_is_turned_upright(orientation: int):
    # The top left is white, the top right grey. From 5 on, rows of the file are columns of the picture.
    stored = np.zeros((2, 3), np.uint8)
    row, column = CORNERS[orientation]
    stored[row, column] = 255
    across = orientation < 5
    stored[row if across else -1 - row, -1 - column if across else column] = 128
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encode_image(Image.fromarray(stored), "PNG", exif=exif)
    upright = np.zeros((2, 3) if across else (3, 2), np.uint8)
    upright[0, 0], upright[0, -1] = 255, 128
    assert np.array_equal(decode_image(content, upright.shape, "stretch", "grayscale")[..., 0], upright)


def test_damaged_exif_data_leave_the_picture_as_it_is():
    image = make_image(0, 0)
    plain = pixels(image, "JPEG")
    assert np.array_equal(pixels(image, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"), plain)
    assert np.array_equal(pixels(image, "JPEG", exif=b"Exif\0\0nonsense"), plain)
    text = PngImagePlugin.PngInfo()
    text.add_text("Raw profile type exif", "\nexif\n8\nno hex\n")  # as ImageMagick writes it into PNG files
    assert np.array_equal(pixels(image, pnginfo=text), np.asarray(image))


def test_of_an_animation_the_first_frame_is_used():
    frames = [Image.new("RGB", (3, 3), color) for color in ((250, 0, 0), (0, 250, 0))]
    content = encode_image(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode_image(content, (3, 3), "stretch", "rgb")[0, 0].tolist() == [250, 0, 0]


def test_shrinking_averages_and_so_hides_no_pixel():
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))
    shrunk = decode_image(encode_image(Image.fromarray(stripes), "PNG"), (8, 8), "stretch", "grayscale")
    assert np.abs(shrunk[:, 1:-1].astype(int) - 127.5).max() < 5


def test_an_image_is_stretched_or_cropped_to_the_height_and_width():
    # Three squares side by side: the outer ones are what a crop to a square cuts off.
    squares = np.repeat(np.array([50, 100, 150], np.uint8), 40)[None].repeat(40, axis=0)
    content = encode_image(Image.fromarray(squares), "PNG")
    cropped = decode_image(content, (20, 20), "crop", "grayscale")
    assert (cropped[:, 1:-1] == 100).all()  # the filter looks a pixel beyond the edge
    assert np.abs(cropped.astype(int) - 100).max() < 10
    stretched = decode_image(content, (20, 60), "stretch", "grayscale")[..., 0]
    assert stretched.shape == (20, 60)
    assert stretched[10, [5, 30, 55]].tolist() == [50, 100, 150]
    assert decode_image(content, (20, 30), "crop", "rgb").shape == (20, 30, 3)


def test_the_limit_of_pixels_is_that_of_pillow(pets: Path):
    # Both hold next to nothing: the one that is small enough to be decoded is found to be damaged.
    write_file(pets / "cats" / "within.png", make_truncated_png(Image.MAX_IMAGE_PIXELS, 1))
    write_file(pets / "cats" / "beyond.png", make_truncated_png(Image.MAX_IMAGE_PIXELS + 1, 1))
    assert kinds(load(config(pets))) == {"cats/beyond.png": "too large", "cats/within.png": "corrupt image"}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP"])
def test_a_file_with_any_damage_is_decoded_or_dropped(kind: str):
    whole = encode_image(make_image(0, 0), kind)
    rng = np.random.default_rng(0)
    fates = set()
    for _ in range(40):
        content = bytearray(whole[: rng.integers(len(whole))] if rng.random() < 0.5 else whole)
        for at in rng.integers(len(content), size=3) if content else []:
            content[at] = rng.integers(256)
        try:
            assert decode_image(bytes(content), (8, 8), "stretch", "rgb").shape == (8, 8, 3)
            fates.add("decoded")
        except UnusableFile as error:
            fates.add(str(error).partition(":")[0])
    assert fates <= {"decoded", "corrupt image", "not an image", "too large", "unsupported colors"}
    assert "corrupt image" in fates


def test_a_postscript_file_is_not_run():
    content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    assert unusable(content).startswith("not an image: ")


# Threads, and what the log says.


def test_results_come_in_order_and_few_are_computed_ahead():
    started, lock = [], threading.Lock()

    def work(number: int) -> int:
        with lock:
            started.append(number)
        time.sleep(0.001 * (number % 3))
        return number

    for consumed, number in enumerate(map_in_order(work, range(60), 2), start=1):
        assert number == consumed - 1
        time.sleep(0.004)  # whoever takes them is slower
        assert len(started) <= consumed + 2 * PREFETCH_PER_THREAD
    assert sorted(started) == list(range(60))


def test_threads_work_at_the_same_time():
    both = threading.Barrier(2, timeout=TIMEOUT)
    assert list(map_in_order(lambda number: both.wait() * 0 + number, range(4), 2)) == [0, 1, 2, 3]


def test_the_log_says_at_most_every_ten_seconds_how_far_it_is(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    caplog.set_level(logging.INFO, "batchscape")
    clock = itertools.count(0, 4)  # seconds; looked at once for each update
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


# Killed at any moment.

PREPARE = """
import logging, sys
from pathlib import Path
from batchscape.config.data import ImageFolderConfig
from batchscape.data.prepare import prepare
from batchscape.data.prepared import write_prepared
logging.basicConfig(level=logging.INFO, stream=sys.stdout)
config = ImageFolderConfig(source="image_folder", path=sys.argv[1], image_size=(512, 512))
write_prepared(Path(sys.argv[2]), prepare(config, 2)[0])
"""


def started(folder: Path, target: Path) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", PREPARE, str(folder), str(target)], stdout=subprocess.PIPE)


def test_a_prepare_that_is_killed_leaves_nothing_that_a_later_one_takes_for_whole(tmp_path: Path):
    folder, target = tmp_path / "pets", tmp_path / "out" / "images.safetensors"
    for label, name in enumerate(("cats", "dogs")):
        for number in range(40):
            write_file(folder / name / f"{number}.jpg", encode_image(make_image(label, number), "JPEG"))

    def partials() -> list[Path]:
        return list(target.parent.glob(".*.partial")) if target.parent.exists() else []

    def kill_when(moment: Callable[[], bool]) -> None:
        process = started(folder, target)
        process.stdout.readline()  # files are being read
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
    assert len(partials()) == 1  # the last one deleted that of the one before
    process = started(folder, target)
    process.communicate()
    assert process.returncode == 0
    assert list(target.parent.iterdir()) == [target]
    again = tmp_path / "again" / "images.safetensors"
    write_prepared(again, prepare(config(folder, image_size=(512, 512)))[0])
    assert target.read_bytes() == again.read_bytes()
    assert len(read_prepared(target).train_labels) == 64
