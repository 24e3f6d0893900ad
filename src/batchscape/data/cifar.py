"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) in the binary version."""

import hashlib
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from batchscape.config.data.images import CifarConfig
from batchscape.data.prepared import INPUTS, TARGETS
from batchscape.data.scratch import Scratch
from batchscape.data.source import DEFAULT_OPTIONS, LoadOptions, ManifestEntry, RawDataset, join_names
from batchscape.data.spec import SIDES, TEST, TRAIN, DataSpec
from batchscape.errors import UserError

SIZE = 32
PIXELS = 3 * SIZE * SIZE
CHUNK_RECORDS = 1_000

CIFAR_10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class Variant(NamedTuple):
    """One of the two sets."""

    name: str
    train_files: tuple[str, ...]
    test_file: str
    label_bytes: int
    """Labels of a record; the last is the finest."""
    label_files: tuple[str, ...]
    """Files with the names of the classes, for each label."""
    num_classes: tuple[int, ...]


VARIANTS = (
    Variant(
        "CIFAR-10",
        tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
        "test_batch.bin",
        1,
        ("batches.meta.txt",),
        (10,),
    ),
    Variant("CIFAR-100", ("train.bin",), "test.bin", 2, ("coarse_label_names.txt", "fine_label_names.txt"), (20, 100)),
)
# Files of the versions for Python and MATLAB.
OTHER_VERSIONS = {"data_batch_1", "data_batch_1.mat", "train", "train.mat"}


def load(config: CifarConfig, options: LoadOptions = DEFAULT_OPTIONS) -> RawDataset:
    """Return the images of all files, those for testing last, and their labels.

    Raises UserError if a file is missing, incomplete or of another kind.
    """
    images = Scratch((SIZE, SIZE, 3), np.uint8, options.folder)
    labels: dict[str, np.ndarray] = {}
    counts: dict[str, int] = {}
    digests: dict[str, str] = {}
    with open_files(config) as (files, variant):
        column = choose_label(config, variant)
        order = [name for name in (*variant.train_files, variant.test_file) if name in files]
        for name in order:
            labels[name], digests[name] = _read_file(files[name], name, variant, column, images, config)
            counts[name] = len(labels[name])
        classes = read_classes(files, variant, column, config)
    sides = {name: SIDES.index(TEST if name == variant.test_file else TRAIN) for name in order}
    return RawDataset(
        DataSpec("images", (3, SIZE, SIZE), "class", classes),
        {INPUTS: images.read(), TARGETS: np.concatenate([labels[name] for name in order]).astype(np.int64)},
        [ManifestEntry(name, digests[name], "", "", SIDES[sides[name]], counts[name]) for name in order],
        (f"files: {variant.name}, {', '.join(order)}",),
        np.concatenate([np.full(counts[name], sides[name], np.int8) for name in order]),
        key="data.path",
        split_by=f"the files of {config.path}",
    )


def inspect_cifar(config: CifarConfig) -> tuple[tuple[str, ...], int, int]:
    """Return the classes and the numbers of training and test images that the sizes of files show."""
    with open_files(config) as (files, variant):
        column = choose_label(config, variant)
        classes = read_classes(files, variant, column, config)
        counts = {}
        for name in (*variant.train_files, variant.test_file):
            if name in files:
                with files[name]() as stream:
                    size = stream.seek(0, os.SEEK_END)
                counts[name] = _count_records(size, name, variant, config)
    num_test = counts.pop(variant.test_file, 0)
    return classes, sum(counts.values()), num_test


def _count_records(size: int, name: str, variant: Variant, config: CifarConfig) -> int:
    record = variant.label_bytes + PIXELS
    if size % record:
        raise UserError(
            f"data.path: {config.path}: {name} ends within record {size // record + 1:,} of {record:,} bytes; "
            "get it again"
        )
    if not size:
        raise UserError(f"data.path: {config.path}: {name} is empty; get it again")
    return size // record


def choose_label(config: CifarConfig, variant: Variant) -> int:
    """Return which label of a record is used. Raises UserError if the set has only one and the section names it."""
    if config.labels is None:
        return variant.label_bytes - 1
    if variant.label_bytes == 1:
        raise UserError(f"data.labels: {config.path} is {variant.name}, which has one kind of labels; remove the key")
    return ("coarse", "fine").index(config.labels)


@contextmanager
def open_files(config: CifarConfig) -> Iterator[tuple[dict[str, Callable[[], IO[bytes]]], Variant]]:
    """Yield functions that open the files of a folder or of a tar file, by name, and which set they are.

    Raises UserError if there are none, or some are missing.
    """
    path = Path(config.path)
    if not path.exists():
        raise UserError(f"data.path: {path} does not exist; paths are relative to the working folder")
    if path.is_dir():
        folders = [path, *sorted(folder for folder in path.iterdir() if folder.is_dir())]
        found = [folder for folder in folders if _names_of_variant({file.name for file in folder.iterdir()})]
        if len(found) > 1:
            names = join_names(folder.name for folder in found)
            raise UserError(f"data.path: {path} has several sets ({names}); name the folder of one")
        folder = found[0] if found else path
        files = {file.name: file for file in sorted(folder.iterdir()) if file.is_file()}
        yield {name: _opener(file) for name, file in files.items()}, _recognize(set(files), config)
        return
    try:
        # Streams of a tar file are read in its order, or else sought: gzip is then decompressed again.
        with tarfile.open(path) as archive:
            members = {Path(member.name).name: member for member in archive.getmembers() if member.isfile()}
            variant = _recognize(set(members), config)
            yield {name: _member_opener(archive, member) for name, member in members.items()}, variant
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise UserError(
            f"data.path: {path} is no folder, and no complete tar file ({' '.join(str(error).split())}); name "
            "cifar-10-binary.tar.gz or cifar-100-binary.tar.gz, or the folder that it was unpacked to"
        )
    except OSError as error:
        raise UserError(f"data.path: {path} cannot be read ({error.strerror or error})")


def _opener(path: Path) -> Callable[[], IO[bytes]]:
    return lambda: path.open("rb")


def _member_opener(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Callable[[], IO[bytes]]:
    def extract() -> IO[bytes]:
        stream = archive.extractfile(member)
        assert stream is not None  # it is a file
        return stream

    return extract


def _names_of_variant(names: set[str]) -> bool:
    return any(names & {*variant.train_files, variant.test_file} for variant in VARIANTS)


def _recognize(names: set[str], config: CifarConfig) -> Variant:
    for variant in VARIANTS:
        present = [name for name in variant.train_files if name in names]
        missing = [name for name in variant.train_files if name not in names]
        if present and missing:
            raise UserError(f"data.path: {config.path} lacks {join_names(missing)} of {variant.name}; add the file")
        if present:
            return variant
    if names & OTHER_VERSIONS:
        raise UserError(
            f"data.path: {config.path} is the version for Python or MATLAB; download the binary version, "
            "cifar-10-binary.tar.gz or cifar-100-binary.tar.gz"
        )
    raise UserError(
        f"data.path: {config.path} has neither data_batch_1.bin (CIFAR-10) nor train.bin (CIFAR-100); name the "
        "folder or tar file of the binary version"
    )


def _read_file(
    open_file: Callable[[], IO[bytes]], name: str, variant: Variant, column: int, images: Scratch, config: CifarConfig
) -> tuple[np.ndarray, str]:
    """Add the images of a file to `images`; return the labels, (n,) uint8, and the hash of its bytes."""
    record = variant.label_bytes + PIXELS
    labels, digest, count = [], hashlib.sha256(), 0
    with open_file() as stream:
        while content := stream.read(CHUNK_RECORDS * record):
            digest.update(content)
            if len(content) % record:
                _count_records(count * record + len(content), name, variant, config)
            records = np.frombuffer(content, np.uint8).reshape(-1, record)
            values = records[:, column]
            wrong = np.flatnonzero(values >= variant.num_classes[column])
            if len(wrong):
                raise UserError(
                    f"data.path: {config.path}: {name}, record {count + wrong[0] + 1:,}: the label {values[wrong[0]]} "
                    f"is not below {variant.num_classes[column]}; get the file again"
                )
            pixels = records[:, variant.label_bytes :].reshape(-1, 3, SIZE, SIZE)
            images.append(pixels.transpose(0, 2, 3, 1))
            labels.append(values.copy())
            count += len(records)
    if not labels:
        _count_records(0, name, variant, config)
    return np.concatenate(labels), digest.hexdigest()


def read_classes(
    files: dict[str, Callable[[], IO[bytes]]], variant: Variant, column: int, config: CifarConfig
) -> tuple[str, ...]:
    """Return the names of the classes; numbers if CIFAR-100 lacks the file with them."""
    name, count = variant.label_files[column], variant.num_classes[column]
    if name not in files:
        return CIFAR_10 if variant.name == "CIFAR-10" else tuple(map(str, range(count)))
    with files[name]() as stream:
        names = tuple(stream.read().decode(errors="replace").split())
    if len(names) != count or len(set(names)) != count:
        problem = f"has {len(names)} names, not {count} different ones"
        raise UserError(f"data.path: {config.path}: {name} {problem}; get it again")
    return names
