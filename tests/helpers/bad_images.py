"""An image folder as users have it: mostly usable files, and at least one of each kind that is dropped."""

import io
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("cats", "dogs")


def encode_image(image: Image.Image, kind: str, **options) -> bytes:
    """Return the bytes of an image file of a format, such as JPEG."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def make_image(label: int, number: int, size: tuple[int, int] = (40, 32)) -> Image.Image:
    """Return a unique image of a size, (width, height), bright at the top for label 0 and at the left for label 1."""
    width, height = size
    noise = np.random.default_rng((label, number)).normal(0, 25, (height, width, 3))
    ramp = np.linspace(200, 50, height)[:, None] if label == 0 else np.linspace(200, 50, width)[None, :]
    return Image.fromarray(np.clip(ramp[..., None] + noise, 0, 255).astype(np.uint8))


def make_truncated_png(width: int, height: int) -> bytes:
    """Return a PNG file whose header gives a size, but which has almost no data."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def write_bad_images(folder: Path, good: int) -> dict[str, str]:
    """Write `good` usable JPEG files for each of two classes, and files that are dropped.

    Return the kind of reason for each dropped file, by its path below the folder.
    """
    for label, name in enumerate(CLASSES):
        for number in range(good):
            write_file(folder / name / f"{number:04}.jpg", encode_image(make_image(label, number), "JPEG"))
    intact = encode_image(make_image(0, good), "JPEG")
    table = intact.index(b"\xff\xc4") + 6
    floats = Image.fromarray(np.array([[-1.0, 7.0]], np.float32))
    bad = {
        "#recycle/0000.jpg": (encode_image(make_image(1, good + 1), "JPEG"), "system file"),
        ".DS_Store": (b"\0\0\0\1Bud1", "system file"),
        "__MACOSX/cats/._0000.jpg": (b"\0\5\26\7", "system file"),
        "birds/only.jpg": (encode_image(make_image(0, good + 1), "JPEG"), "class of one image"),
        "cats/@eaDir/0000.jpg/SYNOPHOTO_THUMB_M.jpg": (encode_image(make_image(0, 0, (8, 8)), "JPEG"), "system file"),
        "cats/Thumbs.db": (b"\xd0\xcf\x11\xe0", "system file"),
        "cats/bytes.jpg": (intact[:-100], "corrupt image"),
        "cats/empty.jpg": (b"", "empty file"),
        "cats/floats.tif": (encode_image(floats, "TIFF"), "unsupported colors"),
        "cats/header.jpg": (intact[:100], "corrupt image"),
        "cats/page.jpg": (b"<html><h1>404 Not Found</h1></html>", "not an image"),
        "cats/table.jpg": (intact[:table] + b"\xff" * 10 + intact[table + 10 :], "corrupt image"),
        "dogs/again.jpg": ((folder / "cats" / "0000.jpg").read_bytes(), "duplicate"),
        "dogs/large.png": (make_truncated_png(10_000, 10_000), "too large"),
        "dogs/larger.png": (make_truncated_png(20_000, 20_000), "too large"),
        "dogs/twice.jpg": ((folder / "dogs" / "0000.jpg").read_bytes(), "duplicate"),
        "fish/notes.txt": (b"no fish yet", "not an image"),
        "readme.txt": (b"cats and dogs", "outside the class folders"),
    }
    for name, (content, _) in bad.items():
        write_file(folder / name, content)
    (folder / "cats" / "gone.jpg").symlink_to("nowhere.jpg")
    return {name: kind for name, (_, kind) in bad.items()} | {"cats/gone.jpg": "unreadable file"}


def write_file(file: Path, content: bytes) -> None:
    """Write a file, creating its folders."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


def write_zip(file: Path, folder: Path, inside: str = "") -> None:
    """Zip the files of a folder in arbitrary order, with the prefix `inside` before their paths."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*"), key=lambda path: path.name[::-1]):
            if path.is_file():
                archive.write(path, f"{inside}{path.relative_to(folder).as_posix()}")
