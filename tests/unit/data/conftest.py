"""Fixtures of the tests of data."""

from pathlib import Path

import pytest

from tests.helpers.bad_images import encode_image, make_image, write_file


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """A folder of two classes of two images each."""
    folder = tmp_path / "pets"
    for label, name in enumerate(("cats", "dogs")):
        for number in range(2):
            write_file(folder / name / f"{number}.jpg", encode_image(make_image(label, number), "JPEG"))
    return folder
