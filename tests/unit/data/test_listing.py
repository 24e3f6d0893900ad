"""Listing of folders: symbolic links, and files that systems create."""

from pathlib import Path

import pytest

from batchscape.data.image_folder import load
from batchscape.data.listing import is_clutter, stat_digest
from tests.helpers.bad_images import write_file
from tests.helpers.image_sets import image_folder


def test_symbolic_link_loop_is_not_followed(pets: Path):
    expected = load(image_folder(pets, drop_duplicates=False))
    (pets / "cats" / "all").symlink_to(pets)
    assert load(image_folder(pets, drop_duplicates=False)).entries == expected.entries


def test_symbolic_link_to_another_folder_is_followed(pets: Path, tmp_path: Path):
    (pets / "dogs").rename(tmp_path / "elsewhere")
    (pets / "dogs").symlink_to(tmp_path / "elsewhere")
    assert load(image_folder(pets)).spec.classes == ("cats", "dogs")


def test_stat_digest_changes_with_images_but_not_with_clutter(pets: Path):
    before = stat_digest(pets)
    write_file(pets / ".cache" / "index", b"x")
    write_file(pets / "cats" / "Thumbs.db", b"x")
    assert stat_digest(pets) == before
    write_file(pets / "cats" / "3.jpg", b"x")
    assert stat_digest(pets) != before


@pytest.mark.parametrize("name", ["trash", "recycle", "misc", "@alice", "#1", "$100", "thumbs", "Cameras", "lost"])
def test_class_names_similar_to_system_folders_are_not_clutter(name: str):
    assert not is_clutter(f"{name}/1.jpg")
