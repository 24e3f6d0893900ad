"""Cats vs Dogs: its order, its classes, and the download from a real server on this machine."""

import hashlib
import io
import re
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from batchscape.config.data import CatsVsDogsConfig, validation_count
from batchscape.data import cats_vs_dogs
from batchscape.data.cats_vs_dogs import download, load
from batchscape.data.prepare import prepare
from batchscape.models import build_network
from batchscape.objective import outputs_for
from batchscape.study import Study
from tests.bad_images import jpeg, photograph

PROJECT = Path(__file__).parents[2]


def archive() -> bytes:
    """A zip file like the real one: 20 cats and 20 dogs, three of them without JFIF, and files beside them."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as content:
        content.writestr("readme[1].txt", "about")
        for label, name in enumerate(("Cat", "Dog")):
            for number in range(20):
                image = jpeg(photograph(label, number))
                content.writestr(
                    f"PetImages/{name}/{number}.jpg", image.replace(b"JFIF", b"EXIF") if number > 17 else image
                )
            content.writestr(f"PetImages/{name}/Thumbs.db", b"\xd0\xcf")
    return stream.getvalue()


ARCHIVE = archive()
DIGEST = hashlib.sha256(ARCHIVE).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves the archive; `script` says what becomes of each request in turn, the last one of all further ones."""

    script = ("whole",)
    requests = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/pets.zip"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        what = server.script[min(server.requests, len(server.script) - 1)]
        server.requests += 1
        if what == "missing":
            self.send_error(404)
            return
        if what == "busy":
            self.send_error(503)
            return
        body = {"whole": ARCHIVE, "broken off": ARCHIVE, "another file": b"something else"}[what]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:1000] if what == "broken off" else body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the pauses before another attempt be short."""
    monkeypatch.setattr("pooch.core.time.sleep", lambda _: None)


def test_a_download_is_the_file_and_is_not_made_twice(server: Server, tmp_path: Path):
    path = download(server.url, DIGEST, tmp_path / "downloads")
    assert path == tmp_path / "downloads" / "pets.zip"
    assert path.read_bytes() == ARCHIVE
    assert download(server.url, DIGEST, tmp_path / "downloads") == path
    assert server.requests == 1


@pytest.mark.usefixtures("at_once")
def test_a_connection_that_breaks_off_is_tried_again(server: Server, tmp_path: Path):
    server.script = ("broken off", "busy", "broken off", "whole")
    assert download(server.url, DIGEST, tmp_path).read_bytes() == ARCHIVE
    assert server.requests == 4
    assert [file.name for file in tmp_path.iterdir()] == ["pets.zip"]


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(
    ("what", "key", "expected"),
    [
        ("missing", "data.url", "404"),
        ("broken off", "data.url", "cannot be downloaded"),
        ("another file", "data.sha256", "does not have this checksum"),
    ],
)
def test_a_failed_download_is_one_line_and_leaves_no_file(
    server: Server, tmp_path: Path, refusal: Callable, what: str, key: str, expected: str
):
    server.script = (what,)
    message = refusal(download, server.url, DIGEST, tmp_path)
    assert message.startswith(f"{key}: ")
    assert expected in message
    assert "get pets.zip by hand and name it as data.path" in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("at_once")
def test_no_network_is_one_line(tmp_path: Path, refusal: Callable):
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as unused:
        url = f"http://127.0.0.1:{unused.server_port}/pets.zip"
    assert refusal(download, url, DIGEST, tmp_path).startswith(f"data.url: {url} cannot be downloaded")


def test_a_damaged_file_of_an_earlier_download_is_not_used(server: Server, tmp_path: Path):
    (tmp_path / "pets.zip").write_bytes(ARCHIVE[:-7])
    assert download(server.url, DIGEST, tmp_path).read_bytes() == ARCHIVE


def test_a_study_without_a_path_downloads_its_images(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    config = CatsVsDogsConfig(source="cats_vs_dogs", url=server.url, sha256=DIGEST, image_size=(8, 8))
    source = load(config, 2)
    assert len(source.images) == 36
    assert (tmp_path / "downloads" / "pets.zip").exists()


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(io.BytesIO(ARCHIVE)) as content:
        content.extractall(folder)
    return folder


def test_the_order_is_that_of_a_salted_md5_of_the_names(unpacked: Path):
    """Worked out apart: TensorFlow Datasets sorts by the 128-bit number md5(split name + key)."""
    source = load(CatsVsDogsConfig(source="cats_vs_dogs", path=str(unpacked), image_size=(8, 8)), 1)
    used = [entry.file for entry in source.entries if not entry.reason]
    assert len(used) == 36
    digests = [hashlib.md5(f"train{file}".encode()).hexdigest() for file in used]
    assert digests == sorted(digests)
    assert used != sorted(used)
    assert source.classes == ("cat", "dog")
    assert [source.classes[label] for label in source.labels] == [
        re.search("Cat|Dog", file)[0].lower() for file in used
    ]


@pytest.mark.parametrize("inside", ["", "PetImages"])
def test_folder_and_zip_give_the_same_whichever_folder_is_named(unpacked: Path, tmp_path: Path, inside: str):
    (tmp_path / "pets.zip").write_bytes(ARCHIVE)
    zipped, folder = (
        load(CatsVsDogsConfig(source="cats_vs_dogs", path=str(path), image_size=(8, 8)), 2)
        for path in (tmp_path / "pets.zip", unpacked / inside)
    )
    assert np.array_equal(zipped.images, folder.images)
    assert np.array_equal(zipped.labels, folder.labels)


def test_without_the_rule_of_jfif_all_images_are_used(unpacked: Path):
    keys = {"source": "cats_vs_dogs", "path": str(unpacked), "image_size": (8, 8)}
    reasons = [entry.reason for entry in load(CatsVsDogsConfig(**keys), 1).entries]
    assert sum(reason.startswith("no JFIF: ") for reason in reasons) == 4
    assert len(load(CatsVsDogsConfig(**keys, jfif_only=False), 1).images) == 40


def test_the_study_file_is_the_original_study():
    study = Study.from_file(PROJECT / "config" / "cats_vs_dogs.yaml")
    outputs = outputs_for(study.training.loss, 2)
    network = build_network(study.model, (3, *study.data.image_size), outputs, 0)
    assert sum(parameter.numel() for parameter in network.parameters()) == 353_161
    held_out = validation_count(23_262, study.data.validation_fraction)
    assert (23_262 - held_out, held_out) == (18_610, 4_652)
    assert (study.data.split, study.data.jfif_only, study.data.drop_duplicates) == ("first", True, False)
    assert study.grid.batch_sizes == (32, 64, 128, 256)
    assert study.grid.learning_rates == (0.01, 0.02, 0.04, 0.08, 0.16)
    assert len(study.grid.seeds) == 1
    assert (study.training.momentum, study.training.patience, study.training.max_epochs) == (0, 100, 1000)
    assert not study.training.reshuffle


def test_the_first_images_in_that_order_train(unpacked: Path):
    config = CatsVsDogsConfig(source="cats_vs_dogs", path=str(unpacked), image_size=(8, 8), split="first")
    _, manifest = prepare(config)
    used = manifest.loc[manifest["reason"] == "", "split"].tolist()
    assert used == ["train"] * 29 + ["validation"] * 7


def test_progress_is_told_in_lines(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cats_vs_dogs, "SECONDS_BETWEEN_LINES", 0.0)
    caplog.set_level("INFO", cats_vs_dogs.log.name)
    progress = cats_vs_dogs.Progress("pets.zip")
    progress.total = 4 << 20
    progress.update(1 << 20)
    assert caplog.messages[0].startswith("pets.zip: 1 of 4 MB (25 %), about ")
    progress.total = 4 << 20  # another attempt begins anew
    progress.update(2 << 20)
    assert caplog.messages[1].startswith("pets.zip: 2 of 4 MB (50 %), about ")
