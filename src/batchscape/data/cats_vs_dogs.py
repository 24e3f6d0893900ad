"""Microsoft's Cats vs Dogs, as its TensorFlow Datasets edition has it."""

import hashlib
import logging
import re
import time
from pathlib import Path

import pooch
import requests

from batchscape.config.data import CatsVsDogsConfig
from batchscape.data.image_folder import Candidate, open_files, usable
from batchscape.data.source import Entry, Source
from batchscape.errors import UserError

DOWNLOADS = Path("downloads")
RETRIES = 5
SECONDS_BETWEEN_LINES = 10.0

NAME = re.compile(r"(?:^|/)(Cat|Dog)/(\d+)\.jpg$")

log = logging.getLogger(__name__)


def load(config: CatsVsDogsConfig, threads: int = 1) -> Source:
    """Return the images of the zip file or folder, which is downloaded if the study names none.

    Their order is that of the TensorFlow Datasets edition, which sorts by a hash of the names: with `split: first` the
    first 80 % train as those of its `train[:80%]` do. Files of other names are dropped.
    """
    path = config.path or str(download(config.url, config.sha256, DOWNLOADS))
    files = open_files(path, "data.path")
    found = [(name, NAME.search(name)) for name in files.names]
    candidates = [Candidate(name, match[1].lower()) for name, match in found if match]
    order = {name: tfds_order(f"PetImages/{match[1]}/{match[2]}.jpg") for name, match in found if match}
    candidates.sort(key=lambda candidate: order[candidate.name])
    reason = "outside the class folders: no numbered JPEG in Cat or Dog"
    others = [Entry(name, "", "", reason) for name, match in found if not match]
    return usable(config, files, candidates, others, threads)


def tfds_order(key: str) -> int:
    """Return the number by which TensorFlow Datasets sorts an example of its split `train`: its salted MD5."""
    return int(hashlib.md5(b"train" + key.encode()).hexdigest(), 16)


def download(url: str, sha256: str, folder: Path) -> Path:
    """Return the file of a URL in a folder; it is downloaded if it is not there with this checksum.

    It is written under another name first, so that it is whole or not there. A connection that breaks off is tried
    again. Raises UserError when the file cannot be had, or has another checksum.
    """
    name = url.partition("?")[0].rstrip("/").rpartition("/")[2]
    mend = f"get {name} by hand and name it as data.path, or name a mirror as data.url"
    store = pooch.create(folder, base_url="", registry={name: sha256}, urls={name: url}, retry_if_failed=RETRIES)
    downloader = pooch.HTTPDownloader(progressbar=Progress(name), chunk_size=1 << 18, timeout=60)
    try:
        return Path(store.fetch(name, downloader=downloader))
    except requests.RequestException as error:
        raise UserError(f"data.url: {url} cannot be downloaded ({' '.join(str(error).split())}); {mend}")
    except ValueError:  # what the library raises for another checksum
        raise UserError(f"data.sha256: what {url} gave does not have this checksum, so it is not used; {mend}")
    except OSError as error:
        raise UserError(f"data.url: {folder}/{name} cannot be written ({error.strerror}); make room, or {mend}")


class Progress:
    """Lines in the log in place of a progress bar, with what the downloader asks of one."""

    def __init__(self, name: str):
        self.name = name
        self.total = 0

    @property
    def total(self) -> int:
        """Bytes of the file; they are set anew at the start of each attempt."""
        return self._total

    @total.setter
    def total(self, count: int) -> None:
        self._total = count
        self.done = 0
        self.started = self.told = time.perf_counter()

    def update(self, count: int) -> None:
        self.done += count
        now = time.perf_counter()
        if now - self.told >= SECONDS_BETWEEN_LINES and self.total:
            self.told = now
            left = (now - self.started) / self.done * (self.total - self.done)
            log.info(
                "%s: %d of %d MB (%d %%), about %.0f s left",
                self.name, self.done >> 20, self.total >> 20, 100 * self.done // self.total, left,
            )  # fmt: skip

    def reset(self) -> None:
        self.done = 0

    def close(self) -> None:
        log.info("%s: %d MB in %.0f s", self.name, self.done >> 20, time.perf_counter() - self.started)
