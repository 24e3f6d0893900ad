"""Cats vs Dogs: the download, from a local server, and the order of the images."""

import hashlib
import http.server
import logging
import resource
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from batchscape.config.data.images import CatsVsDogsConfig
from batchscape.config.data.section import held_out_count
from batchscape.data import cats_vs_dogs
from batchscape.data.archive import SourceFile
from batchscape.data.cats_vs_dogs import download, load, sort_like_tfds
from batchscape.data.prepare import prepare
from batchscape.data.source import LoadOptions
from batchscape.study.study import Study
from tests.helpers.bad_images import encode_image, make_image, write_file, write_zip
from tests.helpers.networks import build_image_network

COUNT = 10
FOLDERS = ("Cat", "Dog")


class Server(http.server.ThreadingHTTPServer):
    """Serves one file for every request, after some failures."""

    content = b""
    failures: tuple[str, ...] = ()
    always = ""
    requests = 0


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        fate = server.always or "".join(server.failures[server.requests : server.requests + 1])
        server.requests += 1
        if fate.isdigit():
            self.send_error(int(fate))
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(server.content)))
        self.end_headers()
        self.wfile.write(server.content[: len(server.content) // 2] if fate == "cut" else server.content)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, with no delay between retries and no proxy for this machine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cats_vs_dogs, "RETRY_DELAYS", (0, 0, 0))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The content of the zip file, with few images: some are not in the edition, or not images."""
    folder = tmp_path_factory.mktemp("unpacked")
    for label, name in enumerate(FOLDERS):
        for number in range(COUNT):
            write_file(folder / "PetImages" / name / f"{number}.jpg", encode_image(make_image(label, number), "JPEG"))
        write_file(folder / "PetImages" / name / "Thumbs.db", b"\xd0\xcf")
    exif = encode_image(make_image(0, COUNT), "JPEG").replace(b"JFIF", b"Exif", 1)
    write_file(folder / "PetImages" / "Cat" / "10.jpg", exif)
    write_file(folder / "PetImages" / "Dog" / "11702.jpg", b"")
    write_file(folder / "PetImages" / "Dog" / "same.jpg", encode_image(make_image(0, 0), "JPEG"))
    write_file(folder / "PetImages" / "Dog" / "12.png", encode_image(make_image(0, 0), "PNG"))
    write_file(
        folder / "PetImages" / "Dog" / "13.jpg", encode_image(make_image(1, 0), "JPEG")
    )  # a duplicate, which the edition contains
    write_file(folder / "readme[1].txt", b"Cats and dogs")
    return folder


@pytest.fixture(scope="module")
def packed(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("packed") / "pets.zip"
    write_zip(path, unpacked)
    return path


def config(**keys) -> CatsVsDogsConfig:
    return CatsVsDogsConfig.model_validate({"source": "cats_vs_dogs", "image_size": (8, 8)} | keys, strict=True)


def config_of(server: Server, **keys) -> CatsVsDogsConfig:
    sha256 = hashlib.sha256(server.content).hexdigest()
    return config(**({"url": url_of(server), "sha256": sha256} | keys))


def url_of(server: Server) -> str:
    return f"http://127.0.0.1:{server.server_port}/mirror/pets%20of%20all.zip?x=1"


def by_the_editions_hash(names: list[str]) -> list[str]:
    """Sort as the writer of TFDS does: by the MD5 of the split's name followed by the key."""

    def place(name: str) -> bytes:
        digest = hashlib.md5(usedforsecurity=False)
        digest.update(b"train")
        digest.update(name.encode())
        return digest.digest()  # the most significant byte is first, so this sorts like the integers

    return sorted(names, key=place)


# Order.


def test_images_are_in_the_order_of_the_tfds_edition(packed: Path, unpacked: Path):
    names = [f"PetImages/{name}/{number}.jpg" for name in FOLDERS for number in range(COUNT)]
    expected = by_the_editions_hash([*names, "PetImages/Dog/13.jpg"])
    source = load(config(path=str(packed)), LoadOptions(2))
    used = [entry for entry in source.entries if not entry.reason]
    assert [entry.file for entry in used] == expected
    assert source.spec.classes == ("cat", "dog")
    assert source.arrays["targets"].tolist() == [int("/Dog/" in name) for name in expected]
    assert [entry.label for entry in used] == ["dog" if "/Dog/" in name else "cat" for name in expected]
    full = load(config(path=str(unpacked)))
    inner = load(config(path=str(unpacked / "PetImages")))
    for other in (full, inner):
        assert np.array_equal(other.arrays["inputs"], source.arrays["inputs"])
        assert np.array_equal(other.arrays["targets"], source.arrays["targets"])


def test_order_does_not_change_between_versions():
    # A study's split depends on the order. If this fails, all published results change.
    files = [SourceFile(f"PetImages/{name}/{number}.jpg", bytes) for name in FOLDERS for number in range(4)]
    expected = ["Cat/2", "Dog/0", "Cat/3", "Dog/2", "Dog/3", "Cat/1", "Dog/1", "Cat/0"]  # by md5sum and sort
    assert [listed.file.name[10:15] for listed in sort_like_tfds(files)] == expected


def test_files_outside_the_edition_are_dropped_with_a_reason(packed: Path):
    source = load(config(path=str(packed)))
    assert {entry.file: entry.reason.partition(":")[0] for entry in source.entries if entry.reason} == {
        "PetImages/Cat/10.jpg": "not JFIF",
        "PetImages/Cat/Thumbs.db": "system file",
        "PetImages/Dog/11702.jpg": "empty file",
        "PetImages/Dog/12.png": "outside the edition",
        "PetImages/Dog/Thumbs.db": "system file",
        "PetImages/Dog/same.jpg": "outside the edition",
        "readme[1].txt": "outside the class folders",
    }


def test_split_first_trains_on_the_first_images(packed: Path):
    manifest = prepare(config(path=str(packed), split="first", validation_fraction=0.2)).manifest
    used = manifest[manifest["reason"] == ""]
    assert used["split"].tolist() == ["train"] * 17 + ["validation"] * 4


def test_another_dataset_is_rejected(tmp_path: Path, refusal: Callable):
    for label, name in enumerate(("birds", "fish")):
        write_file(tmp_path / "zoo" / name / "0.jpg", encode_image(make_image(label, 0), "JPEG"))
    message = refusal(load, config(path="zoo"))
    assert message.startswith("data.path: zoo has no usable images; of 2 files were dropped: 2 outside the ")


# Download.


def test_file_is_downloaded_only_once(server: Server, packed: Path, working_folder: Path):
    server.content = packed.read_bytes()
    first = load(config_of(server))
    assert list((working_folder / "downloads").iterdir()) == [working_folder / "downloads" / "pets of all.zip"]
    assert (working_folder / "downloads" / "pets of all.zip").read_bytes() == server.content
    second = load(config_of(server))
    assert server.requests == 1
    assert np.array_equal(first.arrays["inputs"], second.arrays["inputs"])
    assert np.array_equal(first.arrays["inputs"], load(config(path=str(packed))).arrays["inputs"])


@pytest.mark.parametrize("failures", [("503", "cut"), ("cut", "500", "503")])
def test_interrupted_download_is_retried(server: Server, failures: tuple[str, ...], working_folder: Path):
    server.content, server.failures = bytes(range(256)) * 20_000, failures
    path = download(url_of(server), hashlib.sha256(server.content).hexdigest(), Path("downloads"))
    assert server.requests == len(failures) + 1
    assert path.read_bytes() == server.content
    assert list((working_folder / "downloads").iterdir()) == [working_folder / path]


@pytest.mark.parametrize(
    ("always", "requests", "reason"),
    [("404", 1, "404 Client Error: Not Found"), ("503", 4, "503 Server Error"), ("cut", 4, "broken")],
)
def test_failed_download_is_reported_and_leaves_no_file(
    server: Server, always: str, requests: int, reason: str, working_folder: Path, refusal: Callable
):
    server.content, server.always = bytes(5_000_000), always
    message = refusal(load, config_of(server))
    assert message.startswith(f"data.url: cannot download {url_of(server)} (")
    assert reason in message
    assert message.endswith("; download the file by other means, and set data.path to it")
    assert server.requests == requests
    assert list((working_folder / "downloads").iterdir()) == []


def test_unreachable_server_is_reported(refusal: Callable):
    with Server(("127.0.0.1", 0), Handler) as gone:
        url = url_of(gone)
    message = refusal(load, config(url=url))
    assert message.startswith(f"data.url: cannot download {url} (")
    assert "refused" in message
    assert message.endswith("set data.path to it")


def test_wrong_checksum_is_reported_and_leaves_no_file(server: Server, working_folder: Path, refusal: Callable):
    server.content = b"something else"
    message = refusal(load, config_of(server, sha256="0" * 64))
    assert message.startswith("data.sha256: ")
    assert hashlib.sha256(b"something else").hexdigest() in message
    assert message.endswith("set data.path to it")
    assert server.requests == 1
    assert list((working_folder / "downloads").iterdir()) == []


def test_file_with_a_wrong_checksum_is_downloaded_again(server: Server, working_folder: Path):
    server.content = b"right"
    write_file(working_folder / "downloads" / "pets of all.zip", b"who")
    path = download(url_of(server), hashlib.sha256(b"right").hexdigest(), Path("downloads"))
    assert path.read_bytes() == b"right"


def test_full_disk_is_reported(server: Server, working_folder: Path, refusal: Callable):
    server.content = bytes(3_000_000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))  # larger files fail, as on a full disk
    try:
        message = refusal(load, config_of(server))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert message.startswith("data.url: ")
    assert "(File too large)" in message
    assert server.requests == 1
    assert list((working_folder / "downloads").iterdir()) == []


def test_download_progress_is_logged(server: Server, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch):
    caplog.set_level(logging.INFO, "batchscape")
    monkeypatch.setattr("batchscape.runtime.read_progress.LOG_INTERVAL", 0.0)
    server.content = bytes(5_000_000)
    download(url_of(server), hashlib.sha256(server.content).hexdigest(), Path("downloads"))
    assert caplog.messages[0] == f"downloading {url_of(server)} to downloads/pets of all.zip"
    assert caplog.messages[1].startswith("1 of 5 MB (20 %), about ")
    assert caplog.messages[-1].startswith("5 MB in ")


def test_study_file_describes_the_original_study():
    study = Study.from_file(Path(__file__).parents[3] / "config" / "cats_vs_dogs.yaml")
    network = build_image_network(study.model, (3, *study.data.image_size), 1, 0)
    assert sum(parameter.numel() for parameter in network.parameters()) == 353_161
    held_out = held_out_count(23_262, study.data.validation_fraction)
    assert (23_262 - held_out, held_out) == (18_610, 4_652)
    assert (study.data.split, study.data.jfif_only, study.data.drop_duplicates) == ("first", True, False)
    assert study.grid.batch_sizes == (32, 64, 128, 256)
    assert study.grid.learning_rates == (0.01, 0.02, 0.04, 0.08, 0.16)
    assert len(study.grid.seeds) == 1
    assert (study.optimizer.arguments, study.training.patience, study.training.budget.epochs) == ({}, 100, 1000)
    assert not study.training.reshuffle
