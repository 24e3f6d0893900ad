"""Microsoft's Cats vs Dogs."""

import hashlib
import logging
import re
import time
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from batchscape.config.data import CatsVsDogsConfig
from batchscape.data.archive import SourceFile, open_archive
from batchscape.data.image_folder import ListedFile, assign_classes, read_images
from batchscape.data.layout import class_root
from batchscape.data.source import RawDataset
from batchscape.errors import UserError
from batchscape.io.files import write_atomically
from batchscape.runtime.read_progress import Progress

DOWNLOADS = Path("downloads")

# Seconds before each further attempt at a download that broke off.
PAUSES = (1.0, 5.0, 25.0)

BYTES_AT_ONCE = 2**20

IMAGE = re.compile(r"(Cat|Dog)/\d+\.jpg")

log = logging.getLogger(__name__)


def load(config: CatsVsDogsConfig, threads: int = 1) -> RawDataset:
    """Return the images of the zip file, which is downloaded if the study names none, in `edition_order`.

    Raises UserError if it can neither be read nor downloaded, or is another data set.
    """
    path = Path(config.path) if config.path else download(config.url, config.sha256, DOWNLOADS)
    with open_archive(path) as files:
        return read_images(sort_like_tfds(files), config.model_copy(update={"path": str(path)}), threads)


def sort_like_tfds(files: Sequence[SourceFile]) -> list[ListedFile]:
    """Return files in the order of the TensorFlow Datasets edition, and last those that are not in it.

    Its builder takes the files `PetImages/Cat/<number>.jpg` and `PetImages/Dog/<number>.jpg`, and its writer sorts them
    by the MD5 of the split's name, `train`, and the path (`tensorflow_datasets/image_classification/cats_vs_dogs.py`,
    `core/hashing.py`), so that the first 80 % are its `train[:80%]`.
    """
    root = class_root([file.name for file in files])
    images, others = [], []
    for listed in assign_classes(files, "Cats vs Dogs")[0]:
        path = listed.file.name.removeprefix(root)
        if IMAGE.fullmatch(path):
            images.append((_place(f"PetImages/{path}"), listed._replace(label=listed.label.lower(), side="")))
        else:
            others.append(listed._replace(label="", reason=listed.reason or "outside the edition: no Cat or Dog"))
    return [listed for _, listed in sorted(images, key=lambda image: image[0])] + others


def _place(key: str) -> int:
    return int(hashlib.md5(f"train{key}".encode(), usedforsecurity=False).hexdigest(), 16)


def download(url: str, sha256: str, folder: Path) -> Path:
    """Return the file of a URL in a folder, downloaded if it is not there whole; its SHA-256 must be the given one.

    Raises UserError, one line, when the download fails.
    """
    import pooch

    path = folder / (PurePosixPath(unquote(urlsplit(url).path)).name or "download")
    if path.is_file() and pooch.file_hash(str(path)) == sha256:
        log.info("%s is there already", path)
        return path

    def write(partial: Path) -> None:
        _download(url, partial)
        found = pooch.file_hash(str(partial))
        if found != sha256:
            raise UserError(
                f"data.sha256: what {url} gives has the checksum {found}, not {sha256}; "
                "name that of the right file, or get it by hand and name it as data.path"
            )

    log.info("downloading %s to %s", url, path)
    try:
        write_atomically(path, write)
    except OSError as error:  # those of the network are of this kind too
        reason = error.strerror or " ".join(str(error).split())
        raise UserError(f"data.url: cannot download {url} ({reason}); get the file by hand, and name it as data.path")
    return path


def _download(url: str, path: Path) -> None:
    """Write what a URL gives to a file, from its beginning again if it breaks off."""
    import pooch
    import requests

    for pause in (*PAUSES, None):
        progress = Progress("MB", units=10**6)
        try:
            pooch.HTTPDownloader(progressbar=progress, chunk_size=BYTES_AT_ONCE)(url, str(path), None)
            return
        except requests.RequestException as error:
            refused = error.response is not None and error.response.status_code < 500
            if refused or pause is None:
                raise
            log.info("the download broke off (%s); again in %.0f s", " ".join(str(error).split()), pause)
            time.sleep(pause)
