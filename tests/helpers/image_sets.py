"""Image sets as found in practice: already split, on network drives, from 12-bit cameras, copied into themselves."""

import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from batchscape.config.data.images import ImageFolderConfig
from batchscape.data.prepare import PrepareResult
from batchscape.data.source import RawDataset
from tests.helpers.bad_images import encode_image, make_image, write_file

CLASSES = ("ants", "bees")


def image_folder(path: Path, **keys: object) -> ImageFolderConfig:
    """Return the config of an image folder or zip file; images are scaled to 12×12 unless `keys` says otherwise."""
    section = {"source": "image_folder", "path": str(path), "image_size": (12, 12)}
    return ImageFolderConfig.model_validate(section | keys, strict=True)


def dropped_kinds(dataset: RawDataset) -> dict[str, str]:
    """Return the kind of reason for each dropped file."""
    return {entry.file: entry.reason.partition(":")[0] for entry in dataset.entries if entry.reason}


def summary_line(prepared: PrepareResult, start: str) -> str:
    """Return the first line of a summary with a given start."""
    return next(line for line in prepared.summary if line.startswith(start))


def write_images(folder: Path, names: Iterable[str]) -> None:
    """Write an image to each name that depends on the name: ants are bright at the top, all others at the left."""
    for name in names:
        image = make_image(0 if "ants" in name else 1, zlib.crc32(name.encode()), (12, 12))
        write_file(folder / name, encode_image(image, "PNG" if name.endswith(".png") else "JPEG"))


def split_names(order: str, counts: dict[str, int]) -> list[str]:
    """Return names of `counts` images of each class in the folder of each side; `order` is like `{side}/{label}`."""
    return [
        f"{order.format(side=side, label=label)}/{number}.png"
        for side, count in counts.items()
        for label in CLASSES
        for number in range(count)
    ]


def write_network_drive(folder: Path) -> None:
    """Write 20 photographs of each class, and the files that network drives, systems and cameras create beside them."""
    photographs = [f"{label}/{number}.jpg" for label in CLASSES for number in range(20)]
    thumbnails = [f"{name.replace('/', '/@eaDir/')}/SYNOPHOTO_THUMB_M.jpg" for name in photographs]
    baskets = ("#recycle", "#snapshot/1", "@Recycle", "@Recently-Snapshot", "$RECYCLE.BIN", "lost+found", ".Trash-1000")
    others = ("System Volume Information", ".thumbnails", ".AppleDouble", "__MACOSX", ".ipynb_checkpoints")
    clutter = [f"{below}{name}/{old}.jpg" for below in ("", "ants/") for name in (*baskets, *others) for old in (1, 2)]
    write_images(folder, [*photographs, *thumbnails, *clutter, "ants/film.THM", "bees/thumbs.db"])


def write_16_bit_png(file: Path, values: np.ndarray) -> None:
    """Write a PNG file with 16 bits per channel, (height, width) or (height, width, 3 or 4)."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(encode_16_bit_png(values))


def encode_16_bit_png(values: np.ndarray) -> bytes:
    """Return a PNG file with 16 bits per channel, (height, width[, 3 or 4]), which Pillow cannot write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    color_type = {1: 0, 3: 2, 4: 6}[values.shape[2] if values.ndim == 3 else 1]
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, color_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(kind, content) for kind, content in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    )


def encode_16_bit_tiff(values: np.ndarray, order: str, compressed: bool) -> bytes:
    """Return a TIFF file with three channels of 16 bits, in either byte order, compressed or not."""
    height, width, channels = values.shape
    content = values.astype(f"{order}u2").tobytes()
    content = zlib.compress(content) if compressed else content
    at = 8 + 2 + 12 * 10 + 4
    # Type 3 is a short, 4 a long. The tags are width, height, bits, compression, RGB, offset of the pixels, …
    tags = [
        *((256, 3, 1, width), (257, 3, 1, height), (258, 3, channels, at), (259, 3, 1, 8 if compressed else 1)),
        *((262, 3, 1, 2), (273, 4, 1, at + 2 * channels), (277, 3, 1, channels), (278, 3, 1, height)),
        *((279, 4, 1, len(content)), (284, 3, 1, 1)),
    ]
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(tags))
    for tag, kind, count, value in tags:
        short = kind == 3 and count == 1
        head += struct.pack(f"{order}HHI", tag, kind, count) + struct.pack(
            f"{order}{'HH' if short else 'I'}", value, *[0] * short
        )
    return head + struct.pack(f"{order}I", 0) + struct.pack(f"{order}{channels}H", *[16] * channels) + content


def write_12_bit_images(folder: Path) -> None:
    """Write 10 images of each class with 12 bits, as from a scientific camera, in 16-bit files."""
    rng = np.random.default_rng(0)
    for label, mean in zip(CLASSES, (800, 3000), strict=True):
        for number in range(10):
            values = np.clip(rng.normal(mean, 200, (12, 12)), 0, 4095).astype(np.uint16)
            write_file(folder / label / f"{number}.png", encode_image(Image.fromarray(values), "PNG"))
