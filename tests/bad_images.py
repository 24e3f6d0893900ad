"""A folder of images with everything in it that real folders have."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (30, 24)
"""Width and height of the good images."""


def jpeg(pixels: np.ndarray, **options) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=95, **options)
    return stream.getvalue()


def photograph(label: int, seed: int) -> np.ndarray:
    """Pixels, (24, 30, 3), whose class shows: one is bright on the left, the other on the right."""
    rng = np.random.default_rng([label, seed])
    ramp = np.linspace(30, 220, SIZE[0])[:: 1 if label else -1]
    return np.clip(ramp[None, :, None] + rng.normal(0, 25, (SIZE[1], SIZE[0], 3)), 0, 255).astype(np.uint8)


def bomb() -> bytes:
    """A PNG of 300 bytes that says it has 20,000 × 20,000 pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 200)) + chunk(b"IEND", b"")
    )


def saved(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def make_folder(folder: Path, count: int) -> dict[str, str]:
    """Write two classes of `count` JPEGs each, and what real folders hold besides.

    Return the files that cannot be used, by path below the folder, each with the kind of reason.
    """
    good: dict[str, bytes] = {}
    for label, name in enumerate(("cat", "dög")):
        for index in range(count):
            good[f"{name}/{index}.jpg"] = jpeg(photograph(label, index))
    picture = Image.fromarray(photograph(0, 1000))
    grey = np.asarray(picture.convert("L"))
    deep = Image.fromarray(grey.astype(np.uint16) * 257 + 3)
    see_through = picture.copy()
    see_through.putalpha(128)
    rotated = Image.Exif()
    rotated[0x0112] = 6
    good |= {
        "cat/cmyk.jpg": saved(picture.convert("CMYK"), "JPEG"),
        "cat/grey.jpg": saved(picture.convert("L"), "JPEG"),
        "cat/palette.gif": saved(picture.convert("P"), "GIF"),
        "cat/sixteen bits.png": saved(deep, "PNG"),
        "cat/transparent.png": saved(see_through, "PNG"),
        "cat/turned.jpg": jpeg(photograph(0, 1001), exif=rotated),
        "cat/übung/日本.bmp": saved(picture.rotate(3), "BMP"),
        "dög/one bit.png": saved(picture.convert("1"), "PNG"),
        "dög/wrong ending.txt": jpeg(photograph(1, 1002)),
    }
    whole = jpeg(photograph(1, 1003))
    bad = {
        "cat/truncated.jpg": (whole[: len(whole) // 2], "damaged image"),
        "cat/corrupt.png": (saved(picture, "PNG")[:60] + b"\xff" * 400, "damaged image"),
        "cat/notes.txt": (b"remember to sort these", "no image"),
        "cat/page.jpg": (b"<html>404</html>", "no image"),
        "dög/empty.jpg": (b"", "empty file"),
        "dög/Thumbs.db": (b"\xd0\xcf\x11\xe0", "system file"),
        "dög/bomb.png": (bomb(), "too large"),
        "dög/copy of a cat.jpg": (good["cat/0.jpg"], "same file"),
        "dög/copy.jpg": (good["dög/1.jpg"], "same file"),
        "lonely/one.jpg": (jpeg(photograph(1, 1004)), "class of one image"),
        "ruined/one.jpg": (b"", "empty file"),
        "readme.md": (b"# Pets", "outside the class folders"),
    }
    for name, content in {**good, **{name: content for name, (content, _) in bad.items()}}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return {name: kind for name, (_, kind) in bad.items()}
