"""Files of folders and zip files: names, permissions, damage."""

import os
import shutil
import struct
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from batchscape.data.image_folder import load
from batchscape.data.listing import stat_digest
from batchscape.data.prepare import prepare
from tests.helpers.bad_images import encode_image, make_image, write_file, write_zip
from tests.helpers.image_sets import dropped_kinds, image_folder, write_images
from tests.helpers.objectives import images_of


def test_non_ascii_names_are_preserved_in_folders_and_zip_files(pets: Path, tmp_path: Path):
    (pets / "cats").rename(pets / "Füchse")
    (pets / "dogs").rename(pets / "犬")
    write_zip(tmp_path / "pets.zip", pets)
    for path in (pets, tmp_path / "pets.zip"):
        source = load(image_folder(path))
        assert source.spec.classes == ("Füchse", "犬")
        assert source.entries[-1].file == "犬/1.jpg"


def test_utf_8_names_in_a_zip_file_are_decoded_without_the_flag(tmp_path: Path):
    packed = tmp_path / "pets.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for folder in ("K\xe4tzchen", "Gr\xfcn\\tief"):
            for number in range(2):
                name = f"{folder}/{number}.jpg"
                archive.writestr(name, encode_image(make_image(len(folder), number), "JPEG"))
    # As on macOS: UTF-8, but without the flag. A zip file has each name, with flags, in two places.
    content = bytearray(packed.read_bytes())
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = content.find(signature)
        while at >= 0:
            flags = struct.unpack_from("<H", content, at + offset)[0]
            assert flags & 0x800
            struct.pack_into("<H", content, at + offset, flags & ~0x800)
            at = content.find(signature, at + 4)
    packed.write_bytes(content)
    source = load(image_folder(packed))
    assert source.spec.classes == ("Grün", "Kätzchen")
    assert source.entries[0].file == "Grün/tief/0.jpg"


def test_name_that_is_not_utf_8_is_escaped(pets: Path):
    os.rename(os.fsencode(pets / "cats"), os.fsencode(pets) + b"/caf\xe9")  # noqa: PTH104 - a Path has no such name
    source = load(image_folder(pets))
    assert source.spec.classes == ("caf\\xe9", "dogs")
    assert source.entries[0].file.encode() == rb"caf\xe9/0.jpg"
    assert len(stat_digest(pets)) == 16


def test_named_pipe_is_dropped_without_blocking(pets: Path):
    os.mkfifo(pets / "cats" / "pipe.jpg")
    assert dropped_kinds(load(image_folder(pets))) == {"cats/pipe.jpg": "unreadable file"}


@pytest.fixture
def as_nobody() -> Iterator[Path]:
    """A folder, used without root privileges, so that permissions take effect."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    Image.init()  # imports modules that may be readable only by root
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    yield folder
    if is_root:
        os.seteuid(0)
    shutil.rmtree(folder)


def test_files_without_read_permission_are_dropped(pets: Path, as_nobody: Path):
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
    source = load(image_folder(folder))
    os.seteuid(os.getuid())
    (folder / "closed").chmod(0o755)
    assert dropped_kinds(source) == {"cats/2.jpg": "unreadable file", "closed": "unreadable file"}
    assert {entry.reason for entry in source.entries} == {
        "",
        "unreadable file: permission denied",
        "unreadable file: a folder that cannot be listed",
    }


def test_file_larger_than_any_image_is_not_read(pets: Path):
    film = pets / "cats" / "film.mp4"
    with film.open("wb") as stream:
        stream.truncate(4 * Image.MAX_IMAGE_PIXELS + 1)  # a sparse file
    entry = next(entry for entry in load(image_folder(pets)).entries if entry.file == "cats/film.mp4")
    assert (entry.sha256, entry.reason) == ("", "too large: 357,913,941 bytes")


def packed_pets(pets: Path, tmp_path: Path) -> bytearray:
    write_zip(tmp_path / "intact.zip", pets)
    return bytearray((tmp_path / "intact.zip").read_bytes())


def test_missing_path_is_rejected(tmp_path: Path, refusal: Callable):
    assert refusal(load, image_folder(tmp_path / "no")).startswith(f"data.path: {tmp_path / 'no'} does not exist")


def test_file_that_is_not_a_zip_file_is_rejected(tmp_path: Path, refusal: Callable):
    write_file(tmp_path / "pets.rar", b"Rar!\x1a\7\1\0")
    message = refusal(load, image_folder(tmp_path / "pets.rar"))
    assert message.startswith(f"data.path: {tmp_path / 'pets.rar'} is neither a folder nor a zip file")


def test_truncated_zip_file_is_rejected(pets: Path, tmp_path: Path, refusal: Callable):
    write_file(tmp_path / "cut.zip", packed_pets(pets, tmp_path)[:-200])
    assert "is a corrupt zip file" in refusal(load, image_folder(tmp_path / "cut.zip"))


def test_encrypted_zip_file_is_rejected(pets: Path, tmp_path: Path, refusal: Callable):
    content = packed_pets(pets, tmp_path)
    content[content.index(b"PK\1\2") + 8] |= 1
    write_file(tmp_path / "secret.zip", content)
    assert f"{tmp_path / 'secret.zip'} is encrypted" in refusal(load, image_folder(tmp_path / "secret.zip"))


# Offsets in the central directory: the version needed to extract, and the compression method (9 is Deflate64, which
# Windows uses for large files).
@pytest.mark.parametrize(("offset", "value"), [(6, 99), (10, 9)])
def test_zip_file_with_unsupported_compression_is_rejected(
    pets: Path, tmp_path: Path, offset: int, value: int, refusal: Callable
):
    content = packed_pets(pets, tmp_path)
    content[content.index(b"PK\1\2") + offset] = value
    write_file(tmp_path / "new.zip", content)
    assert "uses an unsupported compression method" in refusal(load, image_folder(tmp_path / "new.zip"))


def test_patched_data_in_a_zip_file_drops_only_that_file(pets: Path, tmp_path: Path):
    write_file(pets / "cats" / "2.jpg", encode_image(make_image(0, 2), "JPEG"))
    content = packed_pets(pets, tmp_path)
    content[content.rindex(b"PK\1\2", 0, content.rindex(b"cats/2.jpg")) + 8] |= 1 << 5
    write_file(tmp_path / "patch.zip", content)
    assert dropped_kinds(load(image_folder(tmp_path / "patch.zip"))) == {"cats/2.jpg": "unreadable file"}


def test_corrupt_file_in_a_zip_file_drops_only_that_file(pets: Path, tmp_path: Path):
    write_file(pets / "cats" / "2.jpg", encode_image(make_image(0, 2), "JPEG"))
    write_zip(tmp_path / "pets.zip", pets)
    content = bytearray((tmp_path / "pets.zip").read_bytes())
    with zipfile.ZipFile(tmp_path / "pets.zip") as archive:
        at = archive.getinfo("cats/2.jpg").header_offset + 300
    content[at : at + 8] = bytes(byte ^ 255 for byte in content[at : at + 8])
    write_file(tmp_path / "pets.zip", content)
    assert dropped_kinds(load(image_folder(tmp_path / "pets.zip"))) == {"cats/2.jpg": "unreadable file"}


def test_zip_names_with_parent_folders_stay_inside(tmp_path: Path):
    write_images(tmp_path / "set", [f"{label}/{n}.png" for label in ("ants", "bees") for n in range(3)])
    write_zip(tmp_path / "set.zip", tmp_path / "set", inside="../../")
    assert np.array_equal(
        images_of(prepare(image_folder(tmp_path / "set.zip")).data.train),
        images_of(prepare(image_folder(tmp_path / "set")).data.train),
    )
