"""Microsoft's Cats vs Dogs."""

import hashlib
import logging
import re
import time
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from batchscape.config.data.images import CatsVsDogsConfig
from batchscape.data.archive import SourceFile, open_archive
from batchscape.data.image_folder import ListedFile, assign_classes, read_images
from batchscape.data.layout import class_root
from batchscape.data.source import DEFAULT_OPTIONS, LoadOptions, RawDataset
from batchscape.errors import UserError
from batchscape.io.files import write_atomically
from batchscape.runtime.read_progress import Progress

DOWNLOADS = Path("downloads")

# Seconds to wait before each retry of an interrupted download.
RETRY_DELAYS = (1.0, 5.0, 25.0)

CHUNK_SIZE = 2**20  # bytes

IMAGE = re.compile(r"(Cat|Dog)/\d+\.jpg")
CLASSES = ("cat", "dog")

log = logging.getLogger(__name__)


def load(config: CatsVsDogsConfig, options: LoadOptions = DEFAULT_OPTIONS) -> RawDataset:
    """Return the images of the zip file, in the order of `sort_like_tfds`; without `path` the file is downloaded.

    Raises UserError if it can be neither read nor downloaded, or is another dataset.
    """
    path = Path(config.path) if config.path else download(config.url, config.sha256, DOWNLOADS)
    with open_archive(path) as files:
        config = config.model_copy(update={"path": str(path)})
        return read_images(sort_like_tfds(files), config, options.threads, options.folder)


def sort_like_tfds(files: Sequence[SourceFile]) -> list[ListedFile]:
    """Return files in the order of the TensorFlow Datasets edition, followed by those that are not in it.

    Its builder takes the files `PetImages/Cat/<number>.jpg` and `PetImages/Dog/<number>.jpg`, and its writer sorts them
    by the MD5 of the split's name, `train`, and the path (`tensorflow_datasets/image_classification/cats_vs_dogs.py`,
    `core/hashing.py`), so that the first 80 % are its `train[:80%]`.
    """
    root = class_root([file.name for file in files])
    images, others = [], []
    for listed in assign_classes(files, "Cats vs Dogs")[0]:
        path = listed.file.name.removeprefix(root)
        if IMAGE.fullmatch(path):
            images.append((_hash(f"PetImages/{path}"), listed._replace(label=listed.label.lower(), side="")))
        else:
            others.append(listed._replace(label="", reason=listed.reason or "outside the edition: not a Cat or Dog"))
    return [listed for _, listed in sorted(images, key=lambda image: image[0])] + others


def _hash(key: str) -> int:
    return int(hashlib.md5(f"train{key}".encode(), usedforsecurity=False).hexdigest(), 16)


def download(url: str, sha256: str, folder: Path) -> Path:
    """Return the path of the file at a URL in a folder, downloaded unless it is there with the given SHA-256.

    Raises UserError if the download fails or has another checksum.
    """
    import pooch

    path = folder / (PurePosixPath(unquote(urlsplit(url).path)).name or "download")
    if path.is_file() and pooch.file_hash(str(path)) == sha256:
        log.info("%s is already downloaded", path)
        return path

    def write(partial: Path) -> None:
        _download_with_retries(url, partial)
        checksum = pooch.file_hash(str(partial))
        if checksum != sha256:
            raise UserError(
                f"data.sha256: the file at {url} has the checksum {checksum}, not {sha256}; set data.sha256 to that of "
                "the right file, or download it by other means, and set data.path to it"
            )

    log.info("downloading %s to %s", url, path)
    try:
        write_atomically(path, write)
    except OSError as error:  # includes network errors
        reason = error.strerror or " ".join(str(error).split())
        raise UserError(
            f"data.url: cannot download {url} ({reason}); download the file by other means, and set data.path to it"
        )
    return path


def _download_with_retries(url: str, path: Path) -> None:
    """Write the content of a URL to a file, starting over if the connection breaks."""
    import pooch
    import requests

    for delay in (*RETRY_DELAYS, None):
        progress = Progress("MB", units=10**6)
        try:
            pooch.HTTPDownloader(progressbar=progress, chunk_size=CHUNK_SIZE)(url, str(path), None)
            return
        except requests.RequestException as error:
            is_refused = error.response is not None and error.response.status_code < 500
            if is_refused or delay is None:
                raise
            log.info("download interrupted (%s); retrying in %.0f s", " ".join(str(error).split()), delay)
            time.sleep(delay)
